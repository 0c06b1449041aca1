"""Why: requests and models explained over HTTP and by the command, and what calls a request by a name."""

import json
import subprocess
import urllib.parse

import grpc
import numpy as np
import openai
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

import serving

ONE = np.ones((1, 4), np.float32)
BODY = {"inputs": [{"name": "INPUT0", "shape": [1], "datatype": "FP32", "data": [1]}]}


def explained(server, kind, name):
    status, _, body = server.get(f"/v2/orion/explain/{kind}/{urllib.parse.quote(name, safe='')}")
    assert status == 200, body
    return json.loads(body)


def lasting(explanation):
    """Without what a moment changes."""
    return {key: value for key, value in explanation.items() if key != "age_seconds"}


def infer(server, model="delay", headers=None, body=BODY):
    """(status, the answer's x-request-id, the answer) over REST."""
    path = f"/v2/models/{model}/infer"
    status, said, answer = server.get(path, method="POST", body=json.dumps(body), headers=headers or {})
    return status, {name.lower(): value for name, value in said.items()}.get("x-request-id"), json.loads(answer)


def test_a_requests_stages_are_its_total(triton, server):
    name = f"stages/of {triton.protocol}"
    triton.identity(ONE, model="delay", request_id=name)
    said = explained(server, "requests", name)
    assert (said["id"], said["model"], said["outcome"], said["rows"]) == (name, "delay", "ok", 1)
    stages = {stage["stage"]: stage["seconds"] for stage in said["stages"]}
    assert list(stages) == ["queue", "carriage", "worker queue", "service"]
    assert min(stages.values()) >= 0 and sum(stages.values()) == pytest.approx(said["total_seconds"], abs=1e-6)
    assert stages["service"] >= 0.02, "the model takes that long"
    assert said["chosen"]["worker"] == server.orion("nodes")[0]["name"] and said["chosen"]["cost"]["service_seconds"] > 0
    assert said["next_best"] is None and said["why"] == "the only replica"
    assert lasting(server.orion("explain", name)) == lasting(said)
    assert lasting(server.orion("explain", "--request", name)) == lasting(said)


def test_a_models_table_has_the_node(server):
    (name,) = [node["name"] for node in server.orion("nodes")]
    for model in ("delay", "minilm"):
        said = explained(server, "models", model)
        place = next(place for place in said["places"] if place["replica"] == "ready")
        assert (said["name"], place["worker"], place["refusal"]) == (model, name, "")
        cost = place["cost"]
        ahead = max(cost["work_seconds"], cost["load_seconds"], cost["carriage_seconds"])
        total = ahead + cost["service_seconds"] + cost["answer_seconds"]
        assert total == pytest.approx(cost["total_seconds"], abs=1e-6) and total > 0
        of_command = server.orion("explain", model)
        assert set(of_command) == set(said) and of_command["places"][0]["worker"] == name


def test_unknown_names(server):
    for kind, name, part in (("models", "nothing", "'nothing' is unknown"), ("requests", "x/y", "'x/y' is not under way")):
        status, _, body = server.get(f"/v2/orion/explain/{kind}/{urllib.parse.quote(name, safe='')}")
        assert status == 404 and part in json.loads(body)["error"]
    for arguments, part in ((["nothing"], "is no model"), (["--model", "nothing"], "unknown"), (["--request", "minilm"], "'minilm'")):
        with pytest.raises(AssertionError, match=f"ended with 1: error: .*{part}"):
            server.orion("explain", *arguments)
    assert server.get("/v2/orion/explain/models/delay", method="POST", body="")[0] == 405


def test_a_token_is_needed(start, tmp_path):
    token = tmp_path / "token"
    token.write_text("secret-" * 8)
    token.chmod(0o600)
    server = start("up", token_file=token)
    path = "/v2/orion/explain/models/identity"
    assert server.get(path)[0] == 200 and server.get(path, headers={})[0] == 401


def test_the_header_names_a_rest_request(server):
    status, echoed, answer = infer(server, headers={"x-request-id": "rest/1"})
    assert (status, echoed, answer["id"]) == (200, "rest/1", "rest/1")
    assert explained(server, "requests", "rest/1")["outcome"] == "ok"
    # The request's own id goes before the header's.
    status, echoed, answer = infer(server, headers={"x-request-id": "rest/2"}, body=BODY | {"id": "own-2"})
    assert (status, echoed, answer["id"]) == (200, "rest/2", "own-2")
    assert explained(server, "requests", "own-2")["id"] == "own-2"
    assert server.get("/v2/orion/explain/requests/rest%2F2")[0] == 404
    status, echoed, answer = infer(server)
    assert (status, echoed) == (200, None) and "id" not in answer
    # A refusal carries it too, and what is no id is refused.
    assert infer(server, "nothing", {"x-request-id": "rest/3"})[:2] == (404, "rest/3")
    status, _, answer = infer(server, headers={"x-request-id": "x" * 129})
    assert status == 400 and "x-request-id" in answer["error"]


def test_the_metadata_names_a_grpc_request(server):
    def request(model, **fields):
        message = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[ONE.tobytes()], **fields)
        message.inputs.add(name="INPUT0", datatype="FP32", shape=ONE.shape)
        return message

    with grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

        def call(message, name):
            answer, call = stub.ModelInfer.with_call(message, metadata=[("x-request-id", name)], timeout=30)
            return answer.id, dict(call.initial_metadata()).get("x-request-id")

        assert call(request("delay"), "grpc-1") == ("grpc-1", "grpc-1")
        assert explained(server, "requests", "grpc-1")["model"] == "delay"
        assert call(request("delay", id="own"), "grpc-2") == ("own", "grpc-2")
        with pytest.raises(grpc.RpcError) as refused:
            call(request("nothing"), "grpc-3")
        assert dict(refused.value.trailing_metadata())["x-request-id"] == "grpc-3"
        stream = stub.ModelStreamInfer(iter([request("delay")]), metadata=[("x-request-id", "stream-1")], timeout=30)
        assert [answer.infer_response.id for answer in stream] == ["stream-1"]
        assert dict(stream.initial_metadata())["x-request-id"] == "stream-1"


def test_the_header_names_an_openai_request(server):
    with openai.OpenAI(base_url=f"http://{server.http}/v1", api_key="none", max_retries=0) as client:
        def embed(model, name):
            return client.embeddings.create(model=model, input="a", extra_headers={"x-request-id": name})

        assert embed("minilm", "openai-1")._request_id == "openai-1"
        said = explained(server, "requests", "openai-1")
        assert (said["model"], said["outcome"]) == ("minilm", "ok")
        with pytest.raises(openai.NotFoundError) as refused:
            embed("nothing", "openai-2")
        assert refused.value.request_id == "openai-2"


def test_the_tables_are_for_people(server):
    assert infer(server, headers={"x-request-id": "table-1"})[0] == 200
    for name, parts in (("table-1", ["queue", "worker queue", "100 %", "why: "]), ("delay", ["carriage", "ready", "/s"])):
        said = subprocess.run(
            [str(serving.BINARY), "explain", name, "--server", server.grpc],
            capture_output=True, text=True, timeout=60, env=serving.environment(), check=False,
        )
        assert said.returncode == 0 and not [part for part in parts if part not in said.stdout], said
