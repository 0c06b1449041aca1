"""Ensembles: pipelines and committees answer under one name through every API, as their parts would one by one."""

import subprocess
import sys

import numpy as np
import openai
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

import serving
from conftest import Triton

sys.path.insert(0, str(serving.ROOT / "scripts"))

import jobs_wire  # noqa: E402

DATA = serving.ROOT / "tests/data"
PHOTO = (DATA / "images/flower.jpg").read_bytes()
X = np.array([[1, 2, 3], [3, 0, -3]], np.float32)

# An `ensemble.toml` of each name.
ENSEMBLES = {
    "top3": """
        outputs = ["classes", "shares"]
        [[step]]
        model = "eyes"
        inputs = { image = "picture" }
        outputs = { logits = "logits" }
        [[step]]
        run = "softmax"
        inputs = { x = "logits" }
        outputs = { y = "all" }
        [[step]]
        run = "top-k"
        with = { k = 3 }
        inputs = { x = "all" }
        outputs = { indices = "classes", values = "shares" }
    """,
    "branches": """
        [[step]]
        name = "left"
        model = "soft"
        inputs = { x = "x" }
        outputs = { y = "l" }
        [[step]]
        name = "right"
        model = "sig"
        inputs = { x = "x" }
        outputs = { y = "r" }
        [[step]]
        name = "again"
        model = "soft"
        inputs = { x = "r" }
        outputs = { y = "rr" }
    """,
    "embeds": """
        family = "sentence-embedding"
        [[step]]
        model = "minilm"
        inputs = { text = "text" }
        outputs = { embedding = "e" }
        [[step]]
        run = "unit-length"
        inputs = { x = "e" }
        outputs = { y = "embedding" }
    """,
    "mean": '[committee]\nmembers = ["soft", { model = "sig", weight = 3 }]\ncombine = "mean"',
    "vote": '[committee]\nmembers = ["soft", "sig", "sig"]\ncombine = "vote"',
    "best": '[committee]\nmembers = ["soft", "sig"]\ncombine = "best"',
    "stack": '[committee]\nmembers = ["soft", "sig"]\ncombine = "stacking"\nstack = { model = "soft" }',
    "nested": """
        [[step]]
        model = "mean"
        inputs = { x = "x" }
        outputs = { y = "m", disagreement = "d" }
        [[step]]
        model = "sig"
        inputs = { x = "m" }
        outputs = { y = "out" }
    """,
    "named": """
        outputs = ["names", "shares"]
        [[step]]
        model = "soft"
        inputs = { x = "x" }
        outputs = { y = "shares" }
        [[step]]
        run = "top-k"
        with = { k = 2, labels = ["a", "b", "c"] }
        inputs = { x = "shares" }
        outputs = { labels = "names" }
        [[step]]
        run = "softmax"
        inputs = { x = "shares" }
        outputs = { y = "again" }
    """,
    # One of them is nowhere.
    "absentee": '[committee]\nmembers = ["soft", "nobody", "sig"]\ncombine = "mean"\nquorum = 2',
    # Takes 0.3 s a member, whatever they hold.
    "patient": '[committee]\nmembers = ["identity", "slow"]\ncombine = "mean"\nquorum = 1\nwait_ms = 60000',
    "hasty": '[committee]\nmembers = ["identity", "identity", "slow"]\ncombine = "mean"\nquorum = 2',
    "strict": '[committee]\nmembers = ["identity", "slow"]\ncombine = "mean"',
    "chain": """
        [[step]]
        name = "one"
        model = "slow"
        inputs = { INPUT0 = "a" }
        outputs = { OUTPUT0 = "b" }
        [[step]]
        name = "two"
        model = "slow"
        inputs = { INPUT0 = "b" }
        outputs = { OUTPUT0 = "c" }
    """,
    "chain-parts": """
        outputs = ["b", "c"]
        [[step]]
        name = "one"
        model = "slow"
        inputs = { INPUT0 = "a" }
        outputs = { OUTPUT0 = "b" }
        [[step]]
        name = "two"
        model = "slow"
        inputs = { INPUT0 = "b" }
        outputs = { OUTPUT0 = "c" }
    """,
    "few": """
        max_requests = 1
        [[step]]
        model = "slow"
        inputs = { INPUT0 = "INPUT0" }
        outputs = { OUTPUT0 = "OUTPUT0" }
    """,
}
# What is wrong with it, and a part of what is said of it.
WRONG = {
    "loop": ('[[step]]\nmodel = "loop"\ninputs = { x = "x" }\noutputs = { y = "y" }', "leads to itself: loop → loop"),
    "absent": ('[[step]]\nmodel = "nowhere"\ninputs = { x = "x" }\noutputs = { y = "y" }', "model 'nowhere' is unknown"),
    "types": (
        '[[step]]\nmodel = "minilm"\ninputs = { text = "t" }\noutputs = { embedding = "e" }\n'
        '[[step]]\nmodel = "eyes"\ninputs = { image = "e" }\noutputs = { label = "l" }',
        "tensor 'e' is FP32 [-1, 384] by minilm, BYTES [-1] by eyes",
    ),
    "names": ('[[step]]\nmodel = "soft"\ninputs = { z = "x" }\noutputs = { y = "y" }', "has no input 'z', it has: x"),
    "broken": ('[[step]]\nmodle = "soft"', "unknown field `modle`"),
    "members": ('[committee]\nmembers = ["soft", "minilm"]\ncombine = "mean"', "has no input 'x'"),
}
TRITON = """
name: "tritons"
platform: "ensemble"
max_batch_size: 8
input [ { name: "TEXT" data_type: TYPE_STRING dims: [ ] } ]
output [ { name: "VECTOR" data_type: TYPE_FP32 dims: [ 384 ] } ]  # as Triton's own are written
ensemble_scheduling {
  step [
    { model_name: "minilm" model_version: -1
      input_map { key: "text" value: "TEXT" } output_map { key: "embedding" value: "raw" } },
    { model_name: "length" model_version: 1
      input_map { key: "x" value: "raw" } output_map { key: "y" value: "VECTOR" } }
  ]
}
"""


def softmax(x):
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository")
    for name, text in {**ENSEMBLES, **{name: text for name, (text, _) in WRONG.items()}}.items():
        (folder / name).mkdir()
        (folder / name / "ensemble.toml").write_text(text)
    (folder / "tritons").mkdir()
    (folder / "tritons/config.pbtxt").write_text(TRITON)
    serving.simulated(folder / "slow", 0.3)
    return folder


@pytest.fixture(scope="module", params=["up", "two"])
def server(request, tmp_path_factory, repository):
    """One server for all tests that leave it as it was."""
    models = {
        "minilm": serving.MODELS / "minilm", "eyes": serving.MODELS / "efficientnet-lite0",
        "soft": "step:softmax", "sig": "step:sigmoid", "length": "step:unit-length",
        "pieces": 'step:chunk{"size":16000,"step":1}',
    }
    running = serving.Server(
        request.param, tmp_path_factory.mktemp(request.param), models, arguments=["--model-repository", str(repository)]
    )
    for name in [*ENSEMBLES, "tritons"]:
        serving.until(lambda name=name: running.ready(name), f"ensemble {name}")
    yield running
    running.stop()


def ask(triton, model, arrays, **settings):
    """What a model answers, by output."""
    inputs = [triton.input(name, array) for name, array in arrays.items()]
    answer = triton.client.infer(model, inputs, **settings)
    listed = answer.get_response()
    names = [o["name"] for o in listed["outputs"]] if isinstance(listed, dict) else [o.name for o in listed.outputs]
    return {name: answer.as_numpy(name) for name in names}


def texts(*rows):
    return np.array([row if isinstance(row, bytes) else row.encode() for row in rows], np.object_)


def test_a_pipeline_answers_what_its_parts_would(triton):
    logits = ask(triton, "eyes", {"image": texts(PHOTO)})["logits"]
    shares = softmax(logits.astype(np.float64))[0]
    answer = ask(triton, "top3", {"picture": texts(PHOTO)})
    assert list(answer) == ["classes", "shares"]
    np.testing.assert_array_equal(answer["classes"][0], np.argsort(-shares)[:3])
    np.testing.assert_allclose(answer["shares"][0], np.sort(shares)[::-1][:3], rtol=1e-4)
    only = ask(triton, "top3", {"picture": texts(PHOTO)}, outputs=[triton.module.InferRequestedOutput("classes")])
    assert list(only) == ["classes"]


def test_branches_meet_and_inputs_are_shared(triton):
    answer = ask(triton, "branches", {"x": X})
    np.testing.assert_allclose(answer["l"], softmax(X), rtol=1e-5)
    np.testing.assert_allclose(answer["rr"], softmax(sigmoid(X)), rtol=1e-5)
    assert list(answer) == ["l", "rr"]


def test_a_committee_combines(triton):
    soft, sig = softmax(X), sigmoid(X)
    answer = ask(triton, "mean", {"x": X})
    mean = (soft + 3 * sig) / 4
    np.testing.assert_allclose(answer["y"], mean, rtol=1e-5)
    far = np.sqrt(((soft - mean) ** 2 + (sig - mean) ** 2).sum(-1) / 6)
    np.testing.assert_allclose(answer["disagreement"], far, rtol=1e-4)
    np.testing.assert_array_equal(answer["answered"], [2, 2])
    np.testing.assert_array_equal(ask(triton, "vote", {"x": X})["y"], [2, 0])
    np.testing.assert_allclose(ask(triton, "stack", {"x": X})["y"], softmax(np.concatenate([soft, sig], -1)), rtol=1e-5)
    # Softmax is surer of the second row than what sigmoid's values are as shares.
    np.testing.assert_allclose(ask(triton, "best", {"x": X})["y"][1], soft[1], rtol=1e-5)
    np.testing.assert_allclose(ask(triton, "nested", {"x": X})["out"], sigmoid(mean), rtol=1e-5)


def test_steps_that_run_with_a_model_do_only_what_is_asked_for(triton, server):
    names = ask(triton, "named", {"x": X})["names"]
    assert names.tolist() == [[b"c", b"b"], [b"a", b"b"]]
    narrow = X[:, :2].copy()
    only = ask(triton, "named", {"x": narrow}, outputs=[triton.module.InferRequestedOutput("shares")])
    np.testing.assert_allclose(only["shares"], softmax(narrow), rtol=1e-5)
    with triton.refuses("INVALID_ARGUMENT", "'top-k'", "must be 3, as the labels"):
        ask(triton, "named", {"x": narrow})
    # Alone it is ready too.
    serving.until(lambda: server.ready("named.top-k"), "the step with labels")


def test_who_is_nowhere_is_not_waited_for(triton):
    answer = ask(triton, "absentee", {"x": X})
    np.testing.assert_allclose(answer["y"], (softmax(X) + sigmoid(X)) / 2, rtol=1e-5)
    np.testing.assert_array_equal(answer["answered"], [2, 2])


def test_what_would_fill_the_memory_is_refused(triton):
    with triton.refuses("INVALID_ARGUMENT", "makes 284001 chunks of 16000"):
        ask(triton, "pieces", {"x": np.zeros((1, 300_000), np.float32)})


def test_metadata_is_that_of_a_model(triton, server):
    grpc = tritonclient.grpc.InferenceServerClient(server.grpc)
    of = grpc.get_model_metadata("embeds")
    assert ([(t.name, t.datatype, list(t.shape)) for t in of.inputs], [(t.name, t.datatype, list(t.shape)) for t in of.outputs]) == (
        [("text", "BYTES", [-1])], [("embedding", "FP32", [-1, 384])],
    )
    of = grpc.get_model_metadata("tritons")
    assert [(t.name, list(t.shape)) for t in [*of.inputs, *of.outputs]] == [("TEXT", [-1]), ("VECTOR", [-1, 384])]
    assert grpc.get_model_config("mean").config.output[0].name == "y"
    before = {s.name: s.inference_count for s in grpc.get_inference_statistics().model_stats}
    ask(triton, "mean", {"x": X})
    assert grpc.get_inference_statistics("mean").model_stats[0].inference_count == before["mean"] + 2
    index = {model.name: (model.state, model.reason) for model in grpc.get_model_repository_index().models}
    assert all(index[name][0] == "READY" for name in [*ENSEMBLES, "tritons"])
    for name, (_, words) in WRONG.items():
        assert index[name][0] == "UNAVAILABLE" and words in index[name][1], (name, index[name])
    assert server.get("/v2/health/ready")[0] == 200


def test_tritons_own_file_is_served(triton):
    vector = ask(triton, "tritons", {"TEXT": texts("hello", "world")})["VECTOR"]
    np.testing.assert_allclose(vector, triton.embed(["hello", "world"]), atol=1e-6)


def test_openai_finds_a_pipeline_that_embeds(server):
    client = openai.OpenAI(base_url=f"http://{server.http}/v1", api_key="none")
    one, other = (client.embeddings.create(model=model, input=["hello"]) for model in ("embeds", "minilm"))
    np.testing.assert_allclose(one.data[0].embedding, other.data[0].embedding, atol=1e-6)
    assert one.usage.total_tokens == other.usage.total_tokens > 0
    assert "embeds" in [model.id for model in client.models.list()]


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_to_who_asks(triton, name):
    with pytest.raises(InferenceServerException) as refused:
        ask(triton, name, {"x": X})
    assert WRONG[name][1] in refused.value.message(), refused.value.message()


def test_bad_requests_are_named(triton):
    with triton.refuses("INVALID_ARGUMENT", "'picture' has datatype FP32", "BYTES"):
        ask(triton, "top3", {"picture": X})
    with triton.refuses("INVALID_ARGUMENT", "input 'image' is unknown", "its inputs are: picture"):
        ask(triton, "top3", {"image": texts(PHOTO)})
    with triton.refuses("INVALID_ARGUMENT", "step 'eyes'", "element 0"):
        ask(triton, "top3", {"picture": texts(b"no image")})
    with triton.refuses("NOT_FOUND", "version '1', not '7'"):
        ask(triton, "mean", {"x": X}, model_version="7")
    with triton.refuses("INVALID_ARGUMENT", "output 'z' is unknown", "y, disagreement, answered"):
        ask(triton, "mean", {"x": X}, outputs=[triton.module.InferRequestedOutput("z")])


def test_a_quorum_answers_when_the_time_is_over(triton):
    answer = ask(triton, "patient", {"INPUT0": X}, timeout=150_000)
    np.testing.assert_array_equal(answer["OUTPUT0"], X)
    np.testing.assert_array_equal(answer["answered"], [1, 1])
    np.testing.assert_array_equal(ask(triton, "patient", {"INPUT0": X})["answered"], [2, 2])
    np.testing.assert_array_equal(ask(triton, "hasty", {"INPUT0": X})["answered"], [2, 2])
    with triton.refuses("DEADLINE_EXCEEDED", "of 2 members answered, the quorum is 2"):
        ask(triton, "strict", {"INPUT0": X}, timeout=150_000)


def idle(server):
    serving.until(lambda: server.figure("requests_running") == server.figure("requests_queued") == 0, "an idle scheduler")


def test_a_deadline_and_a_client_that_goes_end_what_runs(triton, server):
    idle(server)
    with pytest.raises(InferenceServerException) as late:
        ask(triton, "chain", {"a": X}, timeout=450_000)
    # A device that is not free yet may be why.
    assert any(code in str(late.value.status()) for code in ("DEADLINE_EXCEEDED", "504", "RESOURCE_EXHAUSTED", "429"))
    assert "step 'one'" in late.value.message() or "step 'two'" in late.value.message()
    grpc = tritonclient.grpc.InferenceServerClient(server.grpc)
    seen, inputs = [], [tritonclient.grpc.InferInput("a", list(X.shape), "FP32").set_data_from_numpy(X)]
    call = grpc.async_infer("chain", inputs, callback=lambda result, error: seen.append(error))
    serving.until(lambda: server.figure("requests_running") > 0, "a step that runs")
    call.cancel()
    idle(server)
    serving.until(lambda: seen, "the end of the call")


def test_outputs_come_as_soon_as_they_are_known(server):
    """Also to those who ask for several pipelines on one stream."""
    grpc, seen = tritonclient.grpc.InferenceServerClient(server.grpc), []
    inputs = [tritonclient.grpc.InferInput("a", list(X.shape), "FP32").set_data_from_numpy(X)]
    grpc.start_stream(lambda result, error: seen.append(error or result.get_response()))
    grpc.async_stream_infer("chain-parts", inputs, request_id="parts", parameters={"partial": True})
    grpc.async_stream_infer("chain-parts", inputs, request_id="whole")
    grpc.async_stream_infer("chain-parts", inputs, request_id="wrong", parameters={"partial": "yes"})
    serving.until(lambda: len(seen) == 4, "all answers")
    grpc.stop_stream()
    told = [(one.id, [o.name for o in one.outputs], one.parameters["triton_final_response"].bool_param) for one in seen if hasattr(one, "id")]
    assert sorted(told) == [("parts", ["b"], False), ("parts", ["c"], True), ("whole", ["b", "c"], False)]
    assert told.index(("parts", ["b"], False)) < told.index(("parts", ["c"], True))
    assert [str(one) for one in seen if not hasattr(one, "id")] == ["parameter 'partial' must be a boolean"]


def test_as_many_as_may_be_are_under_way(triton, server):
    grpc = tritonclient.grpc.InferenceServerClient(server.grpc)
    done, inputs = [], [tritonclient.grpc.InferInput("INPUT0", list(X.shape), "FP32").set_data_from_numpy(X)]
    for _ in range(4):
        grpc.async_infer("few", inputs, callback=lambda result, error: done.append(str(error)))
    serving.until(lambda: len(done) == 4, "all answers")
    assert done.count("None") == 1 and sum("1 requests to ensemble 'few' are under way" in error for error in done) == 3, done


def test_a_job_may_ask_an_ensemble(server):
    jobs = jobs_wire.Jobs(server.grpc)
    spec = jobs.message("orion.v1.JobSpec")()
    spec.inference.model_name = "mean"
    spec.inference.inputs.add(name="x", datatype="FP32").shape.extend(X.shape)
    spec.inference.raw_input_contents.append(X.tobytes())
    job = jobs.call("Submit")(jobs.message("orion.v1.SubmitJobRequest")(spec=spec), timeout=30).id
    assert jobs.watch(job)[-1].state == "succeeded"
    y = np.reshape(jobs.result(job), X.shape)
    np.testing.assert_allclose(y, (softmax(X) + 3 * sigmoid(X)) / 4, rtol=1e-5)


def test_ensembles_are_loaded_and_unloaded_as_models(start, repository, tmp_path):
    folder = tmp_path / "models"
    (folder / "twice").mkdir(parents=True)
    file = folder / "twice/ensemble.toml"
    file.write_text('[[step]]\nrun = "softmax"\ninputs = { x = "x" }\noutputs = { y = "y" }')
    server = start("two", arguments=["--model-repository", str(folder)])
    triton = Triton("grpc", server)
    serving.until(lambda: server.ready("twice"), "the ensemble")
    np.testing.assert_allclose(ask(triton, "twice", {"x": X})["y"], softmax(X), rtol=1e-5)
    triton.client.unload_model("twice")
    assert server.get("/v2/models/twice/ready")[0] == 404
    with triton.refuses("NOT_FOUND", "model 'twice' is unknown"):
        ask(triton, "twice", {"x": X})
    file.write_text(file.read_text().replace("softmax", "sigmoid"))
    triton.client.load_model("twice")
    np.testing.assert_allclose(ask(triton, "twice", {"x": X})["y"], sigmoid(X), rtol=1e-5)
    file.write_text("[[step]]")
    with pytest.raises(InferenceServerException, match="step 1 must have either model"):
        triton.client.load_model("twice")
    np.testing.assert_allclose(ask(triton, "twice", {"x": X})["y"], sigmoid(X), rtol=1e-5)
    # What it brought goes with it, whichever file brought it.
    assert {m["name"] for m in server.orion("models") if m["state"] != "unloaded"} == {"identity", "twice", "twice.sigmoid"}
    triton.client.unload_model("twice")
    assert {m["name"] for m in server.orion("models") if m["state"] != "unloaded"} == {"identity"}
    (folder / "twice.softmax").mkdir()
    (folder / "twice.softmax/ensemble.toml").write_text('[[step]]\nmodel = "identity"\ninputs = { INPUT0 = "a" }\noutputs = { OUTPUT0 = "b" }')
    file.write_text('[[step]]\nrun = "softmax"\ninputs = { x = "x" }\noutputs = { y = "y" }')
    with pytest.raises(InferenceServerException, match="its step 'twice.softmax' has the name of a model"):
        triton.client.load_model("twice")


def test_a_worker_dies_under_a_pipeline_and_the_answer_comes(start, repository):
    server = start("two", {"slow": repository / "slow", "sig": "step:sigmoid"}, arguments=["--model-repository", str(repository)])
    server.add_worker("w2")
    serving.until(lambda: server.ready("chain") and {"w1", "w2"} <= set(server.nodes()), "two workers")
    grpc, answers = tritonclient.grpc.InferenceServerClient(server.grpc), []
    inputs = [tritonclient.grpc.InferInput("a", list(X.shape), "FP32").set_data_from_numpy(X)]
    for _ in range(6):
        grpc.async_infer("chain", inputs, callback=lambda result, error: answers.append(error or result.as_numpy("c")))
    serving.until(lambda: server.figure("requests_running") > 0, "a step that runs")
    server.worker.kill()
    serving.until(lambda: len(answers) == 6, "all answers")
    for answer in answers:
        np.testing.assert_array_equal(answer, X)


def test_a_step_that_is_wrong_does_not_start():
    for given, words in [("step:sotfmax", "unknown variant `sotfmax`"), ('step:top-k{"k":0}', "k is 0")]:
        done = subprocess.run(
            [str(serving.BINARY), "up", "--model", f"s={given}", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"],
            capture_output=True, text=True, timeout=60, env=serving.environment(), check=False,
        )
        assert done.returncode != 0 and words in done.stderr, done.stderr
