"""What a server says of itself: metadata, configuration, statistics, repository, health, reflection, metrics."""

import json

import grpc
import numpy as np
import pytest
import tritonclient.utils
from google.protobuf.json_format import MessageToDict
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from prometheus_client.parser import text_string_to_metric_families

import serving


def plain(answer):
    """gRPC's messages and HTTP's JSON as the same nested dictionaries."""
    if isinstance(answer, (dict, list)):
        return answer
    return MessageToDict(answer, preserving_proto_field_name=True)


def test_live_and_ready(triton):
    assert triton.client.is_server_live() and triton.client.is_server_ready()
    assert triton.client.is_model_ready("minilm") and triton.client.is_model_ready("identity", "1")
    assert not triton.client.is_model_ready("nothing")


def test_server_metadata(triton):
    said = plain(triton.client.get_server_metadata())
    assert said["name"] == "orion" and said["version"]
    assert {"model_repository", "statistics", "model_configuration", "binary_tensor_data"} <= set(said["extensions"])


def test_model_metadata(triton):
    said = plain(triton.client.get_model_metadata("minilm"))
    tensors = [(t["name"], t["datatype"], [int(d) for d in t["shape"]]) for t in said["inputs"] + said["outputs"]]
    assert said["name"] == "minilm" and said["versions"] == ["1"] and said["platform"]
    assert tensors == [("text", "BYTES", [-1]), ("embedding", "FP32", [-1, 384])]


def test_model_config(triton):
    said = plain(triton.client.get_model_config("identity"))
    config = said.get("config", said)
    assert config["name"] == "identity" and int(config.get("max_batch_size", 0)) == 0
    tensors = [(t["name"], t["data_type"]) for t in config["input"] + config["output"]]
    assert tensors == [("INPUT0", "TYPE_FP32"), ("OUTPUT0", "TYPE_FP32")]


def test_statistics_count_what_was_sent(triton):
    def stats():
        said = plain(triton.client.get_inference_statistics("minilm"))["model_stats"]
        assert [model["name"] for model in said] == ["minilm"]
        return said[0]

    before = stats()
    for _ in range(3):
        triton.embed(["one", "two"])
    after = stats()

    def grew(*path):
        return number(after, *path) - number(before, *path)

    assert grew("inference_stats", "success", "count") == 3
    assert grew("inference_count") == 6
    assert 1 <= grew("execution_count") <= 3
    assert grew("inference_stats", "success", "ns") > 0 and grew("inference_stats", "compute_infer", "ns") > 0
    everything = plain(triton.client.get_inference_statistics())["model_stats"]
    assert {"minilm", "identity"} <= {model["name"] for model in everything}


def number(nested, *path):
    for step in path:
        nested = nested.get(step, {})
    return int(nested or 0)


def test_repository_index_load_and_unload(triton):
    def states():
        said = plain(triton.client.get_model_repository_index())
        return {model["name"]: model.get("state") for model in (said if isinstance(said, list) else said["models"])}

    assert states()["minilm"] == "READY" and states()["delay"] == "READY"
    triton.client.unload_model("delay")
    serving.until(lambda: states().get("delay") != "READY", "the model to be unloaded")
    assert not triton.client.is_model_ready("delay")
    with pytest.raises(tritonclient.utils.InferenceServerException) as refused:
        triton.identity(np.ones(1, np.float32), model="delay")
    assert refused.value.status().split()[0] in ("StatusCode.UNAVAILABLE", "StatusCode.NOT_FOUND", "503", "404")
    triton.client.load_model("delay")
    assert triton.client.is_model_ready("delay") and states()["delay"] == "READY"
    assert triton.identity(np.ones(1, np.float32), model="delay").tolist() == [1]
    with triton.refuses("NOT_FOUND", "nothing"):
        triton.client.load_model("nothing")


def test_health(server):
    with grpc.insecure_channel(server.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "inference.GRPCInferenceService"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as unknown:
            stub.Check(health_pb2.HealthCheckRequest(service="nothing"))
        assert unknown.value.code() == grpc.StatusCode.NOT_FOUND


def test_reflection_lists_the_services(server):
    with grpc.insecure_channel(server.grpc) as channel:
        services = set(ProtoReflectionDescriptorDatabase(channel).get_services())
    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health", "orion.v1.Cluster"} <= services


def samples(server):
    """Metric name and model to value, as a Prometheus scrape reads them."""
    status, headers, body = server.get("/metrics", server.metrics)
    assert status == 200 and "text/plain" in headers.get("content-type", headers.get("Content-Type", ""))
    families = text_string_to_metric_families(body.decode())
    # The parser adds `_total` to counters that have none, as Triton's have.
    return {
        (sample.name.removesuffix("_total"), sample.labels.get("model")): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_count_what_was_sent(triton):
    before = samples(triton.server)
    for _ in range(5):
        triton.embed(["one", "two"])
    after = samples(triton.server)
    for name, grew in (("nv_inference_request_success", 5), ("nv_inference_count", 10)):
        assert after[name, "minilm"] - before[name, "minilm"] == grew, name
    assert 1 <= after["nv_inference_exec_count", "minilm"] - before["nv_inference_exec_count", "minilm"] <= 5
    assert after["nv_inference_request_duration_us", "minilm"] > before["nv_inference_request_duration_us", "minilm"]
    assert any(name.startswith("orion_") for name, _ in after)


def test_http_answers_in_json(server):
    status, headers, body = server.get("/v2/models/nothing")
    assert status == 404 and "nothing" in json.loads(body)["error"]
    assert "application/json" in headers.get("content-type", headers.get("Content-Type", ""))
    assert server.get("/no/such/path")[0] == 404
    assert server.get("/v2/models/identity/infer")[0] == 405
