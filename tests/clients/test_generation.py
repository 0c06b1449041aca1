"""Generation over OpenAI's API, Triton's generate and decoupled streams, and streams that outlive their worker."""

import concurrent.futures
import json
import queue
import threading

import numpy as np
import openai
import pytest
import tritonclient.grpc

import serving
from serving import until

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def models():
    folder = serving.MODELS / "smollm2"
    if not folder.is_dir():
        pytest.fail(f"{folder} is missing, make it with: scripts/fetch-models smollm2 --to {serving.MODELS}")
    return {"smollm2": folder}


@pytest.fixture(scope="module", params=["up", "two"])
def generating(request, tmp_path_factory, models):
    running = serving.Server(request.param, tmp_path_factory.mktemp(f"generating-{request.param}"), models)
    yield running
    running.stop()


def client_of(server):
    return openai.OpenAI(base_url=f"http://{server.http}/v1", api_key="none is needed", max_retries=0)


@pytest.fixture
def client(generating):
    with client_of(generating) as one:
        yield one


def streamed(client, **settings):
    chunks = list(client.completions.create(model="smollm2", stream=True, **settings))
    return "".join(choice.text for chunk in chunks for choice in chunk.choices), chunks


def test_an_answer_s_id_is_explained(generating, client):
    chat = client.chat.completions.create(model="smollm2", messages=QUESTION, max_tokens=2)
    text = client.completions.create(model="smollm2", prompt="The sky is", max_tokens=2)
    for answer in (chat, text):
        status, _, said = generating.get(f"/v2/orion/explain/requests/{answer.id}")
        assert status == 200 and json.loads(said)["outcome"] == "ok", said


def test_chat_answers_whole_and_streamed_alike(client):
    settings = {"model": "smollm2", "messages": QUESTION, "max_tokens": 16, "temperature": 0}
    whole = client.chat.completions.create(**settings)
    text = whole.choices[0].message.content
    assert "Paris" in text and whole.choices[0].finish_reason == "stop"
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    chunks = list(client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **settings))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
    assert chunks[0].choices[0].delta.role == "assistant" and len(chunks) > 5
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    # The same prompt again: its keys and values are there.
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens > 0


def test_equal_seeds_give_equal_text_and_others_do_not(client):
    def draw(seed):
        settings = {"prompt": "Once upon a time", "max_tokens": 24, "temperature": 1.0, "seed": seed}
        return client.completions.create(model="smollm2", **settings).choices[0].text

    assert draw(7) == draw(7) != draw(8)
    several = client.completions.create(model="smollm2", prompt=["Once", "Twice"], max_tokens=4, n=2, seed=1)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]


def test_stop_texts_and_probabilities(client):
    whole = client.completions.create(model="smollm2", prompt=PROMPT, max_tokens=8, temperature=0, logprobs=2)
    text, listed = whole.choices[0].text, whole.choices[0].logprobs
    assert "".join(listed.tokens) == text and len(listed.tokens) == 8
    assert all(np.isfinite(listed.token_logprobs)) and all(len(top) == 2 for top in listed.top_logprobs)
    stop = text.split()[1][:2]
    cut = client.completions.create(model="smollm2", prompt=PROMPT, max_tokens=8, temperature=0, stop=[stop])
    assert cut.choices[0].text == text[: text.index(stop)] and cut.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"temperature": -1}, "temperature"), ({"top_p": 0}, "top_p"), ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**6}, "tokens"), ({"n": 99}, "'n'"), ({"logprobs": 99}, "log-probabilities"),
        ({"stop": [""]}, "stop"), ({"prompt": []}, "prompt"), ({"extra_body": {"priority": 9}}, "priority"),
    ],
)
def test_what_is_wrong_is_named(client, settings, word):
    with pytest.raises(openai.BadRequestError, match=word):
        client.completions.create(**{"model": "smollm2", "prompt": "x", **settings})


def test_bench_counts_the_tokens_of_answers(generating):
    said = generating.orion("bench", "smollm2", "--concurrency", "2", "--max-tokens", "5", "--seconds", "1")
    for run in said:
        assert run["rate"] > 0 and not run["errors"]
        assert run["tokens_per_second"] == pytest.approx(5 * run["rate"])


def test_models_that_do_not_generate_say_so(client):
    with pytest.raises(openai.BadRequestError, match="does not generate"):
        client.chat.completions.create(model="identity", messages=QUESTION)
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="nothing", prompt="x")


def tensors(text, tokens, stream):
    module = tritonclient.grpc
    arrays = {
        "text_input": np.array([text.encode()], dtype=np.object_), "max_tokens": np.array([tokens], np.int32),
        "stream": np.array([stream]),
    }
    for name, array in arrays.items():
        tensor = module.InferInput(name, [1], tritonclient.utils.np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        yield tensor


def decoupled(server, text, tokens, stream, **settings):
    """The pieces of one request on a stream."""
    answers = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(server.grpc) as one:
        one.start_stream(callback=lambda result, error: answers.put((result, error)))
        one.async_stream_infer("smollm2", list(tensors(text, tokens, stream)), **settings)
        pieces, last = [], False
        while not last:
            result, error = answers.get(timeout=60)
            assert error is None, error
            pieces.append(result.as_numpy("text_output")[0].decode())
            last = result.get_response().parameters["triton_final_response"].bool_param
        one.stop_stream()
    return pieces


def test_generations_on_one_stream_pass_each_other(generating):
    """A short one is answered while the long one before it goes on; each has its own pieces in order."""
    answers = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(generating.grpc) as one:
        one.start_stream(callback=lambda result, error: answers.put((result, error)))
        for name, tokens in [("long", 120), ("short", 3)]:
            one.async_stream_infer("smollm2", list(tensors(PROMPT, tokens, True)), request_id=name)
        pieces, order, open_ones = {"long": [], "short": []}, [], {"long", "short"}
        while open_ones:
            result, error = answers.get(timeout=60)
            assert error is None, error
            said = result.get_response()
            pieces[said.id].append(result.as_numpy("text_output")[0].decode())
            if said.parameters["triton_final_response"].bool_param:
                open_ones.remove(said.id)
                order.append(said.id)
        one.stop_stream()
    assert order == ["short", "long"]
    assert "".join(pieces["long"]).startswith("".join(pieces["short"])), pieces


def test_triton_s_clients(generating, client):
    expected = client.completions.create(model="smollm2", prompt=PROMPT, max_tokens=8, temperature=0).choices[0].text
    pieces = decoupled(generating, PROMPT, 8, True)
    assert "".join(pieces) == expected and len(pieces) > 4
    assert decoupled(generating, PROMPT, 8, False) == [expected]
    with tritonclient.grpc.InferenceServerClient(generating.grpc) as one:
        assert one.infer("smollm2", list(tensors(PROMPT, 8, False))).as_numpy("text_output")[0].decode() == expected
    body = json.dumps({"text_input": PROMPT, "max_tokens": 8})
    status, _, answer = generating.get("/v2/models/smollm2/generate", method="POST", body=body)
    assert (status, json.loads(answer)["text_output"]) == (200, expected)
    status, headers, answer = generating.get("/v2/models/smollm2/generate_stream", method="POST", body=body)
    events = [json.loads(line.removeprefix("data: ")) for line in answer.decode().split("\n\n") if line]
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    assert "".join(event["text_output"] for event in events) == expected
    # As in Triton, what is no field of `generate` is a parameter.
    body = json.dumps({"text_input": PROMPT, "max_tokens": 8, "temperature": 1.0, "seed": 5})
    _, _, drawn = generating.get("/v2/models/smollm2/generate", method="POST", body=body)
    other = client.completions.create(
        model="smollm2", prompt=PROMPT, max_tokens=8, temperature=1.0, seed=5, extra_body={"top_k": -1}
    )
    assert json.loads(drawn)["text_output"] == other.choices[0].text != expected
    with tritonclient.grpc.InferenceServerClient(generating.grpc) as one:
        assert one.get_model_config("smollm2").config.model_transaction_policy.decoupled


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "city": {"enum": ["Paris", "Rome"]},
        "ages": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "maxItems": 3},
    },
    "required": ["name", "city", "ages"],
    "additionalProperties": False,
}
AS_PERSON = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": PERSON}}
ASKED = [{"role": "user", "content": "Describe Marie, who lives in Paris, as JSON."}]


def check_person(text):
    person = json.loads(text)
    # Also in the schema's order.
    assert list(person) == ["name", "city", "ages"], person
    assert isinstance(person["name"], str) and len(person["name"]) <= 12 and person["city"] in ("Paris", "Rome")
    assert len(person["ages"]) <= 3 and all(isinstance(age, int) and 0 <= age <= 99 for age in person["ages"])


@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"temperature": 1.5, "seed": 3}], ids=["greedy", "seeded"])
def test_answers_keep_to_a_schema(client, sampling):
    settings = {
        "model": "smollm2", "messages": ASKED, "max_tokens": 96, "response_format": AS_PERSON, **sampling,
    }
    choice = client.chat.completions.create(**settings).choices[0]
    assert choice.finish_reason == "stop"
    check_person(choice.message.content)
    chunks = client.chat.completions.create(stream=True, **settings)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == choice.message.content


def test_answers_that_are_any_object(client):
    whole = client.chat.completions.create(
        model="smollm2", messages=ASKED, max_tokens=200, temperature=0, response_format={"type": "json_object"}
    )
    choice = whole.choices[0]
    if choice.finish_reason == "stop":
        assert isinstance(json.loads(choice.message.content), dict)
    else:
        assert choice.finish_reason == "length" and choice.message.content.lstrip().startswith("{")


@pytest.mark.parametrize(
    ("form", "word"),
    [
        ({"type": "xml"}, "xml"), ({"type": "json_schema"}, "json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"schema": {"type": "objekt"}}}, "schema"),
        ({"type": "json_schema", "json_schema": {"schema": {"unevaluatedItems": 1}}}, "unevaluatedItems"),
    ],
)
def test_forms_that_cannot_be_kept_to_are_named(client, form, word):
    with pytest.raises(openai.BadRequestError, match=word):
        client.completions.create(model="smollm2", prompt="x", max_tokens=4, extra_body={"response_format": form})


def test_schemas_through_triton_s_clients(generating):
    form = json.dumps(AS_PERSON)
    check_person("".join(decoupled(generating, "A person: ", 96, True, parameters={"response_format": form})))
    body = json.dumps({"text_input": "A person: ", "max_tokens": 96, "parameters": {"response_format": form}})
    status, _, answer = generating.get("/v2/models/smollm2/generate", method="POST", body=body)
    assert status == 200, answer
    check_person(json.loads(answer)["text_output"])


def test_a_client_that_leaves_frees_its_place(generating, client):
    stream = client.completions.create(model="smollm2", prompt="Once", max_tokens=1000, stream=True)
    next(iter(stream))
    stream.close()

    def running():
        status, _, text = generating.get("/metrics", generating.metrics)
        assert status == 200
        return generating.get("/v2/models/smollm2/stats")

    until(running, "the statistics")
    answer = client.completions.create(model="smollm2", prompt=PROMPT, max_tokens=2, temperature=0)
    assert answer.choices[0].text.startswith(" Paris")


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0}, {"temperature": 1.0, "seed": 11},
        {"temperature": 1.0, "seed": 11, "extra_body": {"response_format": AS_PERSON}},
    ],
    ids=["greedy", "seeded", "schema"],
)
def test_a_stream_outlives_its_worker(start, models, settings):
    """kill -9 of the worker in the middle of a stream: the client sees one unbroken text."""
    server = start("two", models)
    server.add_worker("w2")
    status = lambda: json.loads(server.get("/v2/orion/explain/models/smollm2")[2])["places"]
    until(lambda: sum(place["replica"] == "ready" for place in status()) >= 1, "a copy")
    with client_of(server) as client:
        settings = {"prompt": "Once upon a time there was", "max_tokens": 80, **settings}
        unbroken, _ = streamed(client, **settings)
        stream = iter(client.completions.create(model="smollm2", stream=True, **settings))
        text = ""
        while len(text) < 20:
            text += next(stream).choices[0].text
        server.worker.kill()
        text += "".join(choice.text for chunk in stream for choice in chunk.choices)
    assert text == unbroken
    if "extra_body" in settings:
        check_person(text)


def test_prompts_that_begin_alike_go_where_that_is_cached(start, models, tmp_path):
    """Two idle workers, one of which has read long instructions: new conversations under them go there."""
    folder = tmp_path / "smollm2"
    folder.mkdir()
    for file in models["smollm2"].iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "orion.toml").write_text("[placement]\nmin_replicas = 2\n")
    server = start("two", {"smollm2": folder})
    server.add_worker("w2")
    explained = lambda kind, name: json.loads(server.get(f"/v2/orion/explain/{kind}/{name}")[2])

    def copies(count):
        places = explained("models", "smollm2")["places"]
        return sum(place["replica"] == "ready" and not place["refusal"] for place in places) == count

    instructions = "Answer as a pirate would, in one word. " * 20
    until(lambda: copies(2), "two copies")
    # Only the second is there when they are read.
    server.worker.kill()
    until(lambda: copies(1), "one copy")
    with client_of(server) as client:

        def ask(question):
            messages = [{"role": "system", "content": instructions}, {"role": "user", "content": question}]
            name = question.strip("?").replace(" ", "-")
            settings = {"model": "smollm2", "max_tokens": 2, "extra_headers": {"x-request-id": name}}
            usage = client.chat.completions.create(messages=messages, **settings).usage
            return usage.prompt_tokens_details.cached_tokens / usage.prompt_tokens, explained("requests", name)

        cached, said = ask("Who?")
        assert (said["chosen"]["worker"], said["prompt"]["cached_tokens"]) == ("w2", 0) and cached < 0.5
        server.start_worker()
        until(lambda: copies(2), "two copies")
        for question in ("Where?", "When was that?", "And why?"):
            cached, said = ask(question)
            assert said["chosen"]["worker"] == "w2" and cached > 0.5, (cached, said)
            assert said["prompt"]["cached_tokens"] > said["prompt"]["tokens"] / 2, said
            assert said["prompt"]["saved_seconds"] > 0 and "of prefill" in said["why"], said


def test_a_more_urgent_generation_preempts(generating, client):
    """Wherever the generator runs: more than it has places for are under way, and all are long."""
    ended, lock = [], threading.Lock()

    def low(number):
        client.completions.create(
            model="smollm2", prompt=f"Tale {number}:", max_tokens=150, temperature=1, seed=number,
            extra_body={"priority": 5, "ignore_eos": True},
        )
        with lock:
            ended.append(number)

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        lows = [pool.submit(low, number) for number in range(20)]
        serving.until(lambda: generators(generating)["running"] >= 16, "sixteen generations")
        first = client.completions.create(
            model="smollm2", prompt="Quick", max_tokens=2, extra_body={"priority": 1, "ignore_eos": True}
        )
        before = len(ended)
        for one in lows:
            one.result()
    assert first.usage.completion_tokens == 2 and before == 0, f"{before} of the others ended before"


def generators(server):
    """How the one generator is filled, by `orion nodes show`."""
    shown = server.orion("nodes", "show", "local" if server.shape == "up" else "w1")
    [found] = [value for _, value in serving.walk([shown]) if isinstance(value, dict) and "kept_bytes" in value]
    return found
