"""Texts to classes and, with a query, to their relevance, as transformers finds them; `/v1/rerank` over plain HTTP."""

import json

import numpy as np
import pytest
import tritonclient.grpc

import serving

MODELS = serving.ROOT / "tests/data/models"
EXPECTED = json.loads((serving.ROOT / "tests/data/expected/bert-heads.json").read_text())
CLASSES, RERANKER = EXPECTED["classifier"], EXPECTED["reranker"]
CUT = {"truncate": True}
QUERY = "What is the capital of France?"
DOCUMENTS = ["The weather in Berlin: rain", "Paris is the capital city of France.", "the cat sat on the mat"]


@pytest.fixture(scope="module", params=["up", "two"])
def server(request, tmp_path_factory):
    models = {"classifier": MODELS / "bert-classifier", "reranker": MODELS / "bert-reranker"}
    running = serving.Server(request.param, tmp_path_factory.mktemp(f"heads-{request.param}"), models)
    yield running
    running.stop()


def ask(triton, model, parameters=None, **texts):
    inputs = [triton.input(name, np.array([text.encode() for text in rows], dtype=np.object_)) for name, rows in texts.items()]
    return triton.client.infer(model, inputs, parameters=parameters)


def close(got, wanted):
    wanted = np.array(wanted, np.float32)
    assert got.shape == wanted.shape and got.dtype == np.float32
    assert np.abs(got - wanted).max() < 1e-5


def test_classes(triton):
    answer = ask(triton, "classifier", CUT, text=CLASSES["text"])
    close(answer.as_numpy("logits"), CLASSES["logits"])
    close(answer.as_numpy("score"), CLASSES["score"]["single_label_classification"])
    assert [label.decode() for label in answer.as_numpy("label")] == CLASSES["label"]


def test_classes_of_pairs(triton):
    first, second = zip(*CLASSES["pairs"], strict=True)
    close(ask(triton, "classifier", CUT, text_pair=second, text=first).as_numpy("logits"), CLASSES["pair_logits"])


def test_relevance(triton):
    queries, texts = zip(*RERANKER["pairs"], strict=True)
    close(ask(triton, "reranker", CUT, query=queries, text=texts).as_numpy("score"), RERANKER["score"])


def test_metadata(server):
    client = tritonclient.grpc.InferenceServerClient(server.grpc)
    for model, wanted in (
        ("classifier", [("text", "BYTES", [-1]), ("text_pair", "BYTES", [-1]), ("logits", "FP32", [-1, 3]), ("label", "BYTES", [-1]), ("score", "FP32", [-1])]),
        ("reranker", [("query", "BYTES", [-1]), ("text", "BYTES", [-1]), ("score", "FP32", [-1])]),
    ):
        described = client.get_model_metadata(model)
        assert [(one.name, one.datatype, list(one.shape)) for one in [*described.inputs, *described.outputs]] == wanted
    config = client.get_model_config("classifier").config
    assert [(one.name, one.optional) for one in config.input] == [("text", False), ("text_pair", True)]
    client.close()
    _, _, body = server.get("/v2/models/classifier/config")
    assert [one["optional"] for one in json.loads(body)["input"]] == [False, True]


def test_the_command_takes_texts(server):
    answer = server.orion("infer", "classifier", *(part for text in CLASSES["text"][:2] for part in ("--text", text)))
    assert CLASSES["label"][0] in json.dumps(answer)


@pytest.mark.parametrize(
    ("model", "texts", "parts"),
    [
        ("reranker", {"query": ["a", "b"], "text": ["c"]}, ["'text' has 1 rows", "'query' has 2"]),
        ("reranker", {"text": ["c"]}, ["input 'query' of model 'reranker' is missing"]),
        ("reranker", {"query": ["a"], "text": ["the " * 60]}, ["element 0 of inputs 'query' and 'text' has 64 tokens", "takes 48", "'truncate'"]),
        ("classifier", {"text": ["a"], "text_pair": ["b", "c"]}, ["'text_pair' has 2 rows", "'text' has 1"]),
        ("classifier", {"text": ["a"], "query": ["b"]}, ["'query' is unknown", "text, text_pair"]),
    ],
)
def test_what_does_not_fit_is_named(triton, model, texts, parts):
    with triton.refuses("INVALID_ARGUMENT", *parts):
        ask(triton, model, **texts)


def rerank(server, **fields):
    body = {"model": "reranker", "query": QUERY, "documents": DOCUMENTS, **fields}
    headers = {"content-type": "application/json", "x-request-id": "r-1"}
    status, headers, answer = server.get("/v1/rerank", headers=headers, method="POST", body=json.dumps(body))
    assert headers.get("x-request-id") == "r-1"
    return status, json.loads(answer)


def test_rerank_over_http(server, triton):
    scores = ask(triton, "reranker", query=[QUERY] * 3, text=DOCUMENTS).as_numpy("score")
    best = sorted(range(3), key=lambda index: -scores[index])
    status, answer = rerank(server)
    assert status == 200 and answer["model"] == "reranker"
    assert [result["index"] for result in answer["results"]] == best
    assert all(set(result) == {"index", "relevance_score"} for result in answer["results"])
    assert np.allclose([result["relevance_score"] for result in answer["results"]], scores[best])
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] > 0

    documents = [DOCUMENTS[0], {"text": DOCUMENTS[1]}, {"id": 3, "text": DOCUMENTS[2]}]
    status, answer = rerank(server, documents=documents, top_n=2, return_documents=True, priority=2)
    assert status == 200
    assert [(result["index"], result["document"]["text"]) for result in answer["results"]] == [(index, DOCUMENTS[index]) for index in best[:2]]


@pytest.mark.parametrize(
    ("fields", "status", "param", "part"),
    [
        ({"model": "nobody"}, 404, "model", "nobody"),
        ({"model": "classifier"}, 400, "model", "model 'classifier' is not a reranker"),
        ({"documents": []}, 400, "documents", "must hold a text"),
        ({"documents": [{"title": "a"}]}, 400, None, "text"),
        ({"documents": "a"}, 400, None, "an array of documents"),
        ({"documents": ["a"] * 2049}, 400, "documents", "more than 2048"),
        ({"query": "q" * (1 << 20), "documents": ["a"] * 100}, 400, "query", "send fewer documents"),
        ({"query": None}, 400, None, "a string"),
        ({"top_n": 0}, 400, "top_n", "1 or more"),
        ({"documents": ["the " * 60]}, 400, None, "'truncate'"),
        ({"priority": 9}, 400, "priority", "priority"),
    ],
)
def test_rerank_refuses_in_openais_shape(server, fields, status, param, part):
    got, answer = rerank(server, **fields)
    assert got == status, answer
    error = answer["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error" and error["param"] == param and part in error["message"]


def test_rerank_cuts_when_asked(server):
    assert rerank(server, documents=["the " * 60], truncate=True)[0] == 200
