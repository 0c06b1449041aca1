"""Makes train.jsonl and test.jsonl of the sentences that people rated for VADER (Hutto and Gilbert, ICWSM 2014).

    python3 scripts/sentiment_data.py hutto_ICWSM_2014 FOLDER
"""

import hashlib
import html
import json
import pathlib
import sys

SOURCES = ("tweets", "amazonReviewSnippets", "movieReviewSnippets", "nytEditorialSnippets")
# From -4 to 4; what lies between is neither.
CLEAR = 0.5


def sentences(folder):
    for source in SOURCES:
        text = (folder / f"{source}_GroundTruth.txt").read_text(encoding="utf-8")
        for line in text.split("\n"):
            if not line.strip():
                continue
            _, rating, sentence = line.split("\t", 2)
            if abs(float(rating)) >= CLEAR:
                yield html.unescape(sentence.strip()), "positive" if float(rating) > 0 else "negative"


def main():
    folder, to = map(pathlib.Path, sys.argv[1:])
    parts = {"train": [], "test": []}
    for text, label in dict(sentences(folder)).items():
        # By the text alone: a sentence is in one of both, whatever else there is.
        part = "test" if hashlib.sha256(text.encode()).digest()[0] < 26 else "train"
        parts[part].append(json.dumps({"text": text, "label": label}, ensure_ascii=False))
    for part, lines in parts.items():
        (to / f"{part}.jsonl").write_text("\n".join(sorted(lines)) + "\n", encoding="utf-8")


main()
