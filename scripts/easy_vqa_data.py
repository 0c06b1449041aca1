"""Makes train.jsonl, test.jsonl and their images of easy-vqa's package.

    python3 scripts/easy_vqa_data.py easy_vqa-1.0-py3-none-any.whl FOLDER
"""

import json
import pathlib
import sys
import zipfile


def main():
    package, to = map(pathlib.Path, sys.argv[1:])
    with zipfile.ZipFile(package) as files:
        for part in ("train", "test"):
            folder = to / "images" / part
            folder.mkdir(parents=True)
            lines = []
            for question, answer, image in json.loads(files.read(f"easy_vqa/data/{part}/questions.json")):
                path = folder / f"{image}.png"
                if not path.exists():
                    path.write_bytes(files.read(f"easy_vqa/data/{part}/images/{image}.png"))
                lines.append(json.dumps({"image": f"images/{part}/{image}.png", "question": question, "answer": answer}))
            (to / f"{part}.jsonl").write_text("\n".join(lines) + "\n")


main()
