"""Prints the cosine similarity of embeddings: similarity.py FILE TEXT..., FILE as `orion infer -o json` wrote it."""

import json
import math
import sys


def numbers(value):
    """The longest flat run of numbers anywhere in nested JSON."""
    if isinstance(value, dict):
        return max(map(numbers, value.values()), key=len, default=[])
    if not isinstance(value, list):
        return []
    if value and all(isinstance(item, (int, float)) for item in value):
        return value
    runs = [numbers(item) for item in value]
    if runs and len(set(map(len, runs))) == 1 and runs[0]:
        return [number for run in runs for number in run]
    return max(runs, key=len, default=[])


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def main():
    path, texts = sys.argv[1], sys.argv[2:]
    with open(path) as file:
        flat = numbers(json.load(file))
    if not flat or len(flat) % len(texts):
        sys.exit(f"{path} holds {len(flat)} numbers, which are no embeddings of {len(texts)} texts")
    size = len(flat) // len(texts)
    rows = [flat[start : start + size] for start in range(0, len(flat), size)]
    width = max(map(len, texts))
    print(" " * (width + 3), *(f"{column + 1:>6}" for column in range(len(texts))))
    for number, (text, row) in enumerate(zip(texts, rows), 1):
        print(f"{number}  {text:<{width}}", *(f"{cosine(row, other):6.3f}" for other in rows))


if __name__ == "__main__":
    main()
