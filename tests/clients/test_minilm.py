"""The sentence-embedding model answers what the reference answers."""

import asyncio

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http

from serving import EXPECTED

TEXTS, WANTED = EXPECTED["text"], np.array(EXPECTED["embedding"], np.float32)


def close(got, wanted):
    assert got.shape == wanted.shape and got.dtype == np.float32
    assert np.abs(got - wanted).max() < 1e-4


def test_the_reference_sentences(triton):
    close(triton.embed(TEXTS), WANTED)


def test_each_alone(triton):
    for text, wanted in zip(TEXTS, WANTED, strict=True):
        close(triton.embed([text]), wanted[None])


def test_lengths_may_be_mixed(triton):
    """More rows than a batch holds, short beside long: each gets the answer that it gets alone."""
    texts = [("word " * (1 + 37 * row % 300)).strip() for row in range(40)] + TEXTS
    together = triton.embed(texts)
    close(together[40:], WANTED)
    for row in (0, 13, 39):
        close(triton.embed([texts[row]]), together[row : row + 1])


def test_http_json(server):
    client = tritonclient.http.InferenceServerClient(server.http)
    tensor = tritonclient.http.InferInput("text", [len(TEXTS)], "BYTES")
    tensor.set_data_from_numpy(np.array(TEXTS, dtype=np.object_), binary_data=False)
    wanted = tritonclient.http.InferRequestedOutput("embedding", binary_data=False)
    close(client.infer("minilm", [tensor], outputs=[wanted]).as_numpy("embedding"), WANTED)
    client.close()


def test_many_clients_share_batches(server):
    async def one(client, row):
        tensor = tritonclient.grpc.InferInput("text", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([TEXTS[row]], dtype=np.object_))
        close((await client.infer("minilm", [tensor])).as_numpy("embedding"), WANTED[row : row + 1])

    async def all_of_them():
        client = tritonclient.grpc.aio.InferenceServerClient(server.grpc)
        try:
            await asyncio.gather(*(one(client, number % len(TEXTS)) for number in range(60)))
        finally:
            await client.close()

    asyncio.run(all_of_them())


@pytest.mark.parametrize("truncate", [None, False])
def test_too_long_is_refused_with_the_way_out(triton, truncate):
    parameters = None if truncate is None else {"truncate": truncate}
    with triton.refuses("INVALID_ARGUMENT", "512", "truncate"):
        triton.embed(["short", "word " * 600], parameters=parameters)


def test_too_long_is_cut_when_asked(triton):
    cut = triton.embed(["word " * 600], parameters={"truncate": True})
    close(cut, triton.embed(["word " * 510]))
    assert abs(np.linalg.norm(cut) - 1) < 1e-4


def test_no_rows(triton):
    assert triton.embed([]).shape == (0, 384)


def test_text_must_be_utf8(server):
    client = tritonclient.grpc.InferenceServerClient(server.grpc)
    tensor = tritonclient.grpc.InferInput("text", [2], "BYTES")
    tensor.set_data_from_numpy(np.array([b"good", b"\xff\xfe"], dtype=np.object_))
    with pytest.raises(tritonclient.utils.InferenceServerException, match="(?i)utf-8") as refused:
        client.infer("minilm", [tensor])
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
    client.close()
