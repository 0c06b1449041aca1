#!/usr/bin/env python3
"""Tokens per second of llama.cpp (llama-cpp-python) on a GGUF file: decoding one sequence, and a prompt.

    pip install llama-cpp-python
    benches/peers/bench_llama.py models-data/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf --threads 1 2

As `cargo bench --bench generation`: 128 tokens after a prompt of 8, a prompt of 128, the best of five.
"""

import argparse
import time

import llama_cpp

DECODED = PROMPT = 128
REPEATS = 5


def best(count, run):
    rates = []
    for _ in range(REPEATS):
        seconds = run()
        rates.append(count / seconds)
    return max(rates)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--threads", type=int, nargs="+", default=[2])
    arguments = parser.parse_args()
    for threads in arguments.threads:
        model = llama_cpp.Llama(
            arguments.file, n_ctx=2048, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False
        )

        def decode():
            model.reset()
            model.eval([7 * at + 11 for at in range(8)])
            started = time.perf_counter()
            for at in range(DECODED):
                # The logits are read, as a sampler would.
                model.eval([13 * at + 5])
            return time.perf_counter() - started

        def prefill():
            model.reset()
            started = time.perf_counter()
            model.eval([7 * at + 11 for at in range(PROMPT)])
            return time.perf_counter() - started

        print(f"llama.cpp, {threads} threads: 1 sequence: {best(DECODED, decode):.1f} tokens/s")
        print(f"llama.cpp, {threads} threads: prompts: {best(PROMPT, prefill):.1f} tokens/s", flush=True)


if __name__ == "__main__":
    main()
