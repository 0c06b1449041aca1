"""Jobs over REST, each answer as the OpenAPI document says."""

import http.client
import json
import sys

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

import serving

sys.path.insert(0, str(serving.ROOT / "scripts"))

import jobs_wire  # noqa: E402

CALL = {"path": "/v2/models/identity/infer", "body": {
    "inputs": [{"name": "INPUT0", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}}


@pytest.fixture(scope="module")
def document(server):
    return json.loads(server.get("/openapi.json")[2])


def test_the_document_is_one(document):
    OpenAPIV31SpecValidator(document).validate()


class Rest:
    """Requests whose answers are checked."""

    def __init__(self, server, document):
        self.server, self.document = server, document

    def __call__(self, method, path, body=None, headers=None, status=200):
        given = {"content-type": "application/json", **(headers or {})}
        body = body if body is None or isinstance(body, bytes) else json.dumps(body)
        code, kind, answer = self.server.get(path, method=method, body=body, headers=given)
        assert code == status, answer
        value = json.loads(answer)
        self.fits(method, path.split("?")[0], status, value)
        return value

    def fits(self, method, path, status, value):
        """Whether the document says so."""
        parts = path.split("/")

        def same(template):
            others = template.split("/")
            return len(others) == len(parts) and all(a == b or a.startswith("{") for a, b in zip(others, parts, strict=True))

        template = next(template for template in self.document["paths"] if same(template))
        responses = self.document["paths"][template][method.lower()]["responses"]
        response = responses.get(str(status), responses["default"])
        if "$ref" in response:
            response = self.document["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
        content = response["content"]["application/json"]
        schema = {**content["schema"], "components": self.document["components"]}
        Draft202012Validator(schema).validate(value)

    def watch(self, job):
        """Each state that the job was in, to its end."""
        return self.events(f"/v1/jobs/{job}/watch", "Job")

    def events(self, path, schema):
        connection = http.client.HTTPConnection(self.server.http, timeout=60)
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200 and answer.getheader("content-type") == "text/event-stream"
        events = [json.loads(line.removeprefix(b"data: ")) for line in answer.read().split(b"\n\n") if line]
        connection.close()
        schema = {"$ref": f"#/components/schemas/{schema}", "components": self.document["components"]}
        for event in events:
            Draft202012Validator(schema).validate(event)
        return events


@pytest.fixture
def rest(server, document):
    return Rest(server, document)


def test_a_call_is_submitted_watched_and_its_answer_kept(rest, server):
    job = rest("POST", "/v1/jobs", {"call": CALL, "labels": {"by": "rest"}, "priority": "high"}, status=201)
    assert (job["kind"], job["model"], job["path"]) == ("call", "identity", CALL["path"])
    events = rest.watch(job["id"])
    assert events[-1]["state"] == "succeeded" and all(event["id"] == job["id"] for event in events)
    result = rest("GET", f"/v1/jobs/{job['id']}/result")
    direct = json.loads(server.get(CALL["path"], method="POST", body=json.dumps(CALL["body"]))[2])
    assert result["outputs"] == direct["outputs"] and result["id"].startswith(f"job-{job['id']}.")
    listed = rest("GET", "/v1/jobs?label=by%3Drest&kind=call&state=succeeded&limit=1")
    assert [one["id"] for one in listed["jobs"]] == [job["id"]]
    refused = rest("POST", f"/v1/jobs/{job['id']}/cancel", status=409)
    assert "has succeeded already" in refused["error"]["message"]


def test_a_key_names_one_job(rest):
    key = {"idempotency-key": "a letter"}
    first = rest("POST", "/v1/jobs", {"call": CALL}, headers=key, status=201)
    again = rest("POST", "/v1/jobs", {"call": CALL, "idempotency_key": "a letter"}, status=201)
    assert again["id"] == first["id"]
    refused = rest("POST", "/v1/jobs", {"call": CALL, "idempotency_key": "another"}, headers=key, status=400)
    assert "of the header" in refused["error"]["message"]


def test_a_job_that_failed_says_why_and_is_retried(rest):
    nobody = {"path": "/v1/embeddings", "body": {"model": "nobody-has-this", "input": "x"}}
    job = rest("POST", "/v1/jobs", {"call": nobody, "retry": {"attempts": 2, "back_off_ms": 1, "codes": ["NOT_FOUND"]}}, status=201)
    last = rest.watch(job["id"])[-1]
    assert (last["state"], last["attempt"]) == ("failed", 2)
    assert [failed["code"] for failed in last["failed"]] == ["NOT_FOUND"] * 2
    refused = rest("GET", f"/v1/jobs/{job['id']}/result", status=409)
    assert "nobody-has-this" in refused["error"]["message"]
    again = rest("POST", f"/v1/jobs/{job['id']}/retry")
    assert again["state"] in ("queued", "running", "failed")
    assert rest.watch(job["id"])[-1]["attempt"] == 4
    lines = rest("GET", f"/v1/jobs/{job['id']}/logs")["lines"]
    assert [line["level"] for line in lines] == ["info", "info", *["warn"] * 4, "error"]
    assert lines[0]["text"] == "submitted: call of model 'nobody-has-this'" and "NOT_FOUND" in lines[2]["text"]
    assert rest.events(f"/v1/jobs/{job['id']}/logs?follow=true", "LogLine") == lines
    rest("GET", f"/v1/jobs/{job['id']}/logs?folow=true", status=400)


def test_a_job_over_grpc_has_its_answer_here_too(rest, server):
    jobs = jobs_wire.Jobs(server.grpc)
    job = jobs.submit([1, 2, 3])
    jobs.watch(job)
    result = rest("GET", f"/v1/jobs/{job}/result")
    assert result["model_name"] == "identity" and result["outputs"][0]["data"] == [1, 2, 3]
    assert rest("GET", f"/v1/jobs/{job}")["kind"] == "inference"


@pytest.mark.parametrize(("body", "part"), [
    ({}, "one kind of work"),
    ({"call": CALL, "file": {"file_id": "file-1"}}, "one kind of work"),
    ({"call": {"path": "/v1/models", "body": {}}}, "none that a job can call"),
    ({"call": {"path": "/v1/embeddings", "body": {"input": "x"}}}, "names no model"),
    ({"call": {"path": "/v1/completions", "body": {"model": "m", "stream": True}}}, "no stream"),
    ({"call": {"path": "/v1/embeddings", "body": [1]}}, "an object"),
    ({"call": CALL, "prio": "high"}, "unknown field `prio`"),
    ({"call": CALL, "priority": "urgent"}, "priority 'urgent' must be"),
    ({"call": CALL, "deadline_ms": -1}, "deadline_ms"),
    ({"call": CALL, "after": [10**9]}, "which there is not"),
    ({"call": CALL, "retry": {"codes": ["OOPS"]}}, "code 'OOPS'"),
    ({"file": {"file_id": "file-999999"}}, "no file 'file-999999'"),
    (b"{", "EOF"),
    (b"", "EOF"),
])
def test_what_is_wrong_is_said(rest, body, part):
    refused = rest("POST", "/v1/jobs", body, status=400)
    assert part in refused["error"]["message"] or part in str(refused["error"])


@pytest.mark.parametrize(("path", "status", "part"), [
    ("/v1/jobs/x", 400, "job 'x' must be a number"),
    ("/v1/jobs/999999", 404, "no job 999999"),
    ("/v1/jobs?state=odd", 400, "state 'odd' must be"),
    ("/v1/jobs?kind=odd", 400, "kind 'odd' must be"),
    ("/v1/jobs?label=a", 400, "NAME=VALUE"),
    ("/v1/jobs?limit=x", 400, "the query is wrong"),
    ("/v1/jobs?stat=failed", 400, "stat"),
    ("/v1/jobs/999999/result", 404, "no job 999999"),
])
def test_what_is_asked_wrongly_is_said(rest, path, status, part):
    assert part in rest("GET", path, status=status)["error"]["message"]


def test_jobs_need_the_token(start, tmp_path):
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text("a-secret-of-many-letters")
    server = start("up", token_file=token)
    for path in ("/v1/jobs", "/v1/files", "/v1/batches", "/openapi.json"):
        assert server.get(path, headers={})[0] == 401, path
        assert server.get(path)[0] == 200, path
    job = json.loads(server.get("/v1/jobs", method="POST", body=json.dumps({"call": CALL}))[2])["id"]
    serving.until(lambda: json.loads(server.get(f"/v1/jobs/{job}")[2])["state"] == "succeeded", "the job")
