"""The openai package, unchanged."""

import asyncio
import base64

import numpy as np
import openai
import pytest

from serving import EXPECTED

TEXTS, WANTED = EXPECTED["text"], np.array(EXPECTED["embedding"], np.float32)


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"http://{server.http}/v1", api_key="none is needed", max_retries=0) as one:
        yield one


def rows(answer):
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    return np.array([item.embedding for item in answer.data], np.float32)


@pytest.mark.parametrize("settings", [{}, {"encoding_format": "float"}], ids=["as the package asks", "float"])
def test_a_batch(client, settings):
    answer = client.embeddings.create(model="minilm", input=TEXTS, **settings)
    assert np.abs(rows(answer) - WANTED).max() < 1e-4
    assert (answer.object, answer.model, answer.data[0].object) == ("list", "minilm", "embedding")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens > 6 * len(TEXTS) - 1


def test_one_text_and_its_tokens(client):
    answer = client.embeddings.create(model="minilm", input=TEXTS[0], user="someone", encoding_format="float")
    assert np.abs(rows(answer) - WANTED[:1]).max() < 1e-4
    assert answer.usage.prompt_tokens == 6  # [CLS] the cat sits outside [SEP]


def test_base64(client):
    answer = client.embeddings.create(model="minilm", input=TEXTS[:2], encoding_format="base64")
    raw = np.stack([np.frombuffer(base64.b64decode(item.embedding), "<f4") for item in answer.data])
    assert np.abs(raw - WANTED[:2]).max() < 1e-4


def test_text_beyond_the_limit_is_refused_or_cut(client):
    text = "word " * 700
    with pytest.raises(openai.BadRequestError, match="truncate"):
        client.embeddings.create(model="minilm", input=text)
    cut = client.embeddings.create(model="minilm", input=text, extra_body={"truncate": True})
    assert cut.usage.prompt_tokens == 512 and len(cut.data[0].embedding) == 384


def test_models(client):
    listed = {model.id: model for model in client.models.list()}
    assert listed["minilm"].object == "model"
    assert client.models.retrieve("minilm").id == "minilm"
    with pytest.raises(openai.NotFoundError, match="nothing"):
        client.models.retrieve("nothing")


def test_errors_have_their_classes(client):
    with pytest.raises(openai.NotFoundError, match="nothing"):
        client.embeddings.create(model="nothing", input="text")
    for wrong in ([], [""] * 2049, [1, 2, 3], "word " * 600):
        with pytest.raises(openai.BadRequestError) as refused:
            client.embeddings.create(model="minilm", input=wrong)
        assert refused.value.body["message"] and refused.value.body["type"]
    with pytest.raises(openai.BadRequestError, match="identity"):
        client.embeddings.create(model="identity", input="text")
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        client.embeddings.create(model="minilm", input="text", dimensions=100)
    client.embeddings.create(model="minilm", input="text", dimensions=384)


def test_async_many_at_once(server):
    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=f"http://{server.http}/v1", api_key="none", max_retries=0) as client:
            calls = (client.embeddings.create(model="minilm", input=TEXTS[number % 6]) for number in range(24))
            for number, answer in enumerate(await asyncio.gather(*calls)):
                assert np.abs(rows(answer) - WANTED[number % 6]).max() < 1e-4

    asyncio.run(all_of_them())
