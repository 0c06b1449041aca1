"""Writes the small BERT models beside it, and what transformers makes of them, in ../expected/bert-heads.json.

    pip install torch transformers && python make_bert.py

Scores of classes are those of transformers' pipeline for each problem type. A reranker's are those of sentence-transformers'
CrossEncoder: the sigmoid of the logit where config.json names no other function.
"""

import json
import pathlib
import shutil
import string
import tempfile

import torch
import transformers

HERE = pathlib.Path(__file__).parent
PLACES = 48
WORDS = """the a an of in is are was it on and to for with not very good bad film book cat dog sat mat loved hated boring
what where who how capital city france paris berlin germany weather rain sun train station open close when""".split()
TEXTS = (
    "The film was very good",
    "A boring, BORING book!",
    "",
    "Café Zürich",
    "hated it: the cat sat on the mat and the dog was not in the city " * 2,
)
PAIRS = (
    ("What is the capital of France?", "Paris is the capital city of France."),
    ("What is the capital of France?", "The weather in Berlin: rain"),
    ("where", ""),
    ("", "the train station"),
    # Of these the second, the first, and both are cut.
    ("when is the station open", "the train is in the station and the sun is on the city " * 6),
    ("the dog and the cat loved the book " * 9, "who loved it"),
    ("what is the weather in the city of " * 8, "the sun and the rain on the mat " * 9),
)


def tokenizer(folder):
    letters = string.ascii_lowercase + string.digits
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.punctuation, *letters, *(f"##{one}" for one in letters), *WORDS]
    path = pathlib.Path(folder) / "vocab.txt"
    path.write_text("\n".join(dict.fromkeys(tokens)) + "\n")
    return transformers.BertTokenizerFast.from_pretrained(folder, model_max_length=PLACES)


def model(vocabulary, **settings):
    config = transformers.BertConfig(
        vocab_size=vocabulary, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=PLACES, initializer_range=0.25, **settings,
    )
    made = transformers.BertForSequenceClassification(config).eval()
    # As trained weights have them, not 0 and 1: a bias that is left out must be seen.
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
        # So that not every text is of one class.
        made.classifier.weight.mul_(4)
    return made


def logits(made, words, texts, pairs=None):
    rows = []
    for index, text in enumerate(texts):
        # In a list, as CrossEncoder gives them: an empty second text that stands alone would be taken for none.
        pair = ([pairs[index]],) if pairs else ()
        encoded = words([text], *pair, truncation="longest_first", max_length=PLACES, return_tensors="pt")
        with torch.no_grad():
            rows.append(made(**encoded).logits[0].tolist())
    return rows


def save(made, words, name):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    made.save_pretrained(folder)
    with tempfile.TemporaryDirectory() as whole:
        words.save_pretrained(whole)
        shutil.copy(pathlib.Path(whole) / "tokenizer.json", folder)


def classifier(words):
    made = model(len(words), id2label={0: "negative", 1: "neutral", 2: "positive"}, label2id={"negative": 0, "neutral": 1, "positive": 2})
    save(made, words, "bert-classifier")
    scores = {}
    for problem in ("single_label_classification", "multi_label_classification", "regression"):
        made.config.problem_type = problem
        pipeline = transformers.TextClassificationPipeline(model=made, tokenizer=words, device="cpu")
        answers = pipeline(list(TEXTS), truncation=True, max_length=PLACES)
        scores[problem] = [answer["score"] for answer in answers]
        labels = [answer["label"] for answer in answers]
    return {
        "text": TEXTS, "logits": logits(made, words, TEXTS), "label": labels, "score": scores,
        "pairs": PAIRS, "pair_logits": logits(made, words, *zip(*PAIRS, strict=True)),
    }


def reranker(words):
    made = model(len(words), num_labels=1)
    save(made, words, "bert-reranker")
    raw = torch.tensor(logits(made, words, *zip(*PAIRS, strict=True)))[:, 0]
    return {"pairs": PAIRS, "logit": raw.tolist(), "score": torch.sigmoid(raw).tolist()}


def main():
    torch.manual_seed(39)
    with tempfile.TemporaryDirectory() as folder:
        words = tokenizer(folder)
    expected = {"classifier": classifier(words), "reranker": reranker(words)}
    (HERE.parent / "expected" / "bert-heads.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    main()
