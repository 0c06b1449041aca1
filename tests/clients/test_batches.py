"""Files of calls as jobs: with the openai package unchanged, whoever is killed meanwhile, and from the command line."""

import csv
import io
import json
import socket
import subprocess
import sys

import grpc
import numpy as np
import openai
import pytest

import serving
from serving import EXPECTED

sys.path.insert(0, str(serving.ROOT / "scripts"))

import jobs_wire  # noqa: E402

csv.field_size_limit(1 << 20)
ENDED = ("completed", "failed", "cancelled", "expired")


def client_of(address):
    return openai.OpenAI(base_url=f"http://{address}/v1", api_key="none is needed", max_retries=0)


@pytest.fixture
def client(server):
    with client_of(server.http) as one:
        yield one


def uploaded(client, lines, **settings):
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    return client.files.create(file=("calls.jsonl", text.encode()), purpose="batch", **settings)


def batch(client, lines, endpoint="/v1/embeddings", window="24h", **settings):
    file = uploaded(client, lines)
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window=window, **settings)


def ended(client, batch):
    def look():
        now = client.batches.retrieve(batch.id)
        return now if now.status in ENDED else None

    return serving.until(look, f"the end of {batch.id}", 120)


def lines_of(client, file):
    return [json.loads(line) for line in client.files.content(file).text.splitlines()] if file else []


def embedding(name, text):
    body = {"model": "minilm", "input": text}
    return {"custom_id": name, "method": "POST", "url": "/v1/embeddings", "body": body}


def delayed(number):
    """A call of the model that takes a while."""
    body = {"inputs": [{"name": "INPUT0", "shape": [1, 1], "datatype": "FP32", "data": [number]}]}
    return {"custom_id": f"n{number}", "method": "POST", "url": "/v2/models/delay/infer", "body": body}


def numbers(lines):
    return [line["response"]["body"]["outputs"][0]["data"] for line in lines]


def test_each_line_is_answered_as_a_client_would_be(client):
    texts = EXPECTED["text"]
    lines = [embedding(f"t{place}", text) for place, text in enumerate(texts)]
    lines += ["", "no json", embedding("nobody", "x"), {**embedding("get", "x"), "method": "GET"}]
    lines[-2]["body"]["model"] = "nobody-has-this"
    given = {"run": "seven", "long": "x" * 512, "empty": ""}
    made = batch(client, lines, metadata=given)
    assert (made.object, made.endpoint, made.completion_window, made.metadata) == ("batch", "/v1/embeddings", "24h", given)
    assert made.expires_at == made.created_at + 24 * 3600
    done = ended(client, made)
    counts = (len(texts) + 3, len(texts), 3)
    assert (done.status, done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == ("completed", *counts)
    assert done.created_at <= done.in_progress_at <= done.completed_at
    output = lines_of(client, done.output_file_id)
    assert [line["custom_id"] for line in output] == [f"t{place}" for place in range(len(texts))]
    assert all(line["error"] is None and line["response"]["status_code"] == 200 for line in output)
    got = np.array([line["response"]["body"]["data"][0]["embedding"] for line in output], np.float32)
    assert np.abs(got - np.array(EXPECTED["embedding"], np.float32)).max() < 1e-4
    assert [line["response"]["body"]["usage"]["prompt_tokens"] for line in output][0] == 6
    bad, nobody, get = lines_of(client, done.error_file_id)
    assert (bad["custom_id"], bad["line"], bad["response"]) == (None, len(texts) + 2, None)
    assert bad["error"]["code"] == "INVALID_ARGUMENT" and "object" in bad["error"]["message"]
    assert (nobody["custom_id"], nobody["response"]["status_code"], nobody["error"]["code"]) == ("nobody", 404, "NOT_FOUND")
    assert [attempt["attempt"] for attempt in nobody["error"]["attempts"]] == [1]
    assert "'GET' must be POST" in get["error"]["message"]
    listed = client.batches.list(limit=1)
    assert [one.id for one in listed.data] == [done.id]
    assert client.files.retrieve(done.output_file_id).bytes == len(client.files.content(done.output_file_id).content)


def test_text_is_generated_from_a_file(start):
    stories = serving.MODELS / "stories15m"
    server = start("up", {"stories": stories})
    body = {"model": "stories", "prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}
    with client_of(server.http) as client:
        wanted = client.completions.create(**body).choices[0].text
        lines = [{"custom_id": str(n), "method": "POST", "url": "/v1/completions", "body": body} for n in range(6)]
        done = ended(client, batch(client, lines, endpoint="/v1/completions"))
        got = lines_of(client, done.output_file_id)
    assert [line["response"]["body"]["choices"][0]["text"] for line in got] == [wanted] * 6


def test_files_are_kept_listed_and_deleted(client):
    body = bytes(range(256)) * 20_000
    kept = client.files.create(file=("all.bin", body), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600})
    assert (kept.bytes, kept.filename, kept.purpose, kept.expires_at - kept.created_at) == (len(body), "all.bin", "batch", 3600)
    again = client.files.create(file=("same.bin", body), purpose="user_data")
    assert client.files.content(kept.id).content == body
    assert [file.id for file in client.files.list(limit=1)][:2] == [again.id, kept.id]
    assert kept.id in [file.id for file in client.files.list(purpose="batch")]
    assert again.id not in [file.id for file in client.files.list(purpose="batch")]
    assert client.files.delete(kept.id).deleted
    with pytest.raises(openai.NotFoundError, match=kept.id):
        client.files.retrieve(kept.id)
    with pytest.raises(openai.NotFoundError):
        client.files.delete(kept.id)
    # What is in it is another's too.
    assert client.files.content(again.id).content == body
    assert client.files.delete(again.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.content(again.id)


def contents(server):
    return {path.name for path in (server.folder / server.scheduler.arguments[0]).glob("contents/*")}


def test_nothing_is_left_of_what_nobody_needs(start):
    server = start("up")
    with client_of(server.http) as client:
        empty = contents(server)
        short = uploaded(client, ["{}"], expires_after={"anchor": "created_at", "seconds": 1})
        line = {"url": "/v2/models/identity/infer", "body": delayed(1)["body"]}
        file = uploaded(client, [line] * 3)
        made = client.batches.create(
            input_file_id=file.id, endpoint="/v2/models/identity/infer", completion_window="1h",
            extra_body={"output_expires_after": {"anchor": "created_at", "seconds": 1}},
        )
        assert client.files.delete(file.id).deleted
        assert ended(client, made).status == "completed"

        def is_gone():
            with pytest.raises(openai.NotFoundError):
                client.files.retrieve(short.id)
                client.batches.retrieve(made.id)
            return contents(server) == empty

        serving.until(lambda: contents(server) == empty, "the contents to be forgotten", 60)
        assert is_gone()
        listed = json.loads(server.get("/v1/jobs?limit=1000")[2])["jobs"]
        assert made.id.removeprefix("batch_") not in [str(job["id"]) for job in listed]


@pytest.fixture
def slow(start, tmp_path):
    return start("two", {"delay": serving.simulated(tmp_path / "delay", 0.02, max_rows=1)})


def test_no_line_is_lost_or_answered_twice_when_processes_are_killed(slow):
    count = 1500
    with client_of(slow.http) as client:
        made = batch(client, [delayed(n) for n in range(count)], endpoint="/v2/models/delay/infer")

        def completed():
            return client.batches.retrieve(made.id).request_counts.completed

        for kill in range(4):
            # Part of the file has been read, and part of that is done, at each.
            serving.until(lambda kill=kill: completed() > 60 * (kill + 1), f"some lines before kill {kill}", 60)
            if kill % 2:
                slow.worker.kill()
                slow.start_worker()
            else:
                slow.scheduler.kill()
                slow.start_scheduler()
                slow.until_ready()
        before = lines_of(client, client.batches.retrieve(made.id).output_file_id)
        done = ended(client, made)
        after = lines_of(client, done.output_file_id)
    assert (done.status, done.request_counts.total, done.request_counts.completed) == ("completed", count, count)
    assert numbers(after) == [[n] for n in range(count)]
    assert 0 < len(before) < count and all(line in after for line in before)
    slow.scheduler.kill()
    verify = [str(serving.BINARY), "journal", "verify", str(slow.folder / "scheduler" / "jobs.redb")]
    checked = subprocess.run(verify, capture_output=True, text=True, check=False, env=serving.environment())
    assert checked.returncode == 0, checked.stderr
    (content,) = (slow.folder / "scheduler" / "contents").iterdir()
    kept = content.read_bytes()
    content.write_bytes(kept[:5000] + bytes([kept[5000] ^ 1]) + kept[5001:])
    checked = subprocess.run(verify, capture_output=True, text=True, check=False, env=serving.environment())
    assert checked.returncode == 1 and "is not what its address says" in checked.stderr, checked.stderr
    content.unlink()
    checked = subprocess.run(verify, capture_output=True, text=True, check=False, env=serving.environment())
    assert checked.returncode == 1 and "needs a content that cannot be read" in checked.stderr, checked.stderr


def test_a_key_names_one_batch(client):
    file = uploaded(client, [embedding("a", "b")])
    wanted = {"input_file_id": file.id, "endpoint": "/v1/embeddings", "completion_window": "24h"}
    first, again = (client.batches.create(**wanted, extra_headers={"Idempotency-Key": "batch 17"}) for _ in range(2))
    assert first.id == again.id != client.batches.create(**wanted).id


def test_a_server_that_is_told_to_stop_ends_well_with_a_batch_under_way(start, tmp_path):
    server = start("up", {"delay": serving.simulated(tmp_path / "delay", 0.2, max_rows=1)})
    with client_of(server.http) as client:
        made = batch(client, [delayed(n) for n in range(100)], endpoint="/v2/models/delay/infer")
        serving.until(lambda: client.batches.retrieve(made.id).request_counts.completed > 0, "a line")
        # With status 0, whatever is under way.
        before = server.scheduler
        before.stop()
        server.start_scheduler()
        server.processes.remove(before)
        server.until_ready()
        done = ended(client, made)
        assert numbers(lines_of(client, done.output_file_id)) == [[n] for n in range(100)]


def test_a_batch_that_is_cancelled_keeps_what_is_done(slow):
    with client_of(slow.http) as client:
        made = batch(client, [delayed(n) for n in range(2000)], endpoint="/v2/models/delay/infer")
        serving.until(lambda: client.batches.retrieve(made.id).request_counts.completed > 20, "some lines")
        gone = client.batches.cancel(made.id)
        assert gone.status == "cancelled" and gone.cancelled_at
        counts = gone.request_counts
        assert counts.total == counts.completed + counts.failed < 2000
        output, errors = lines_of(client, gone.output_file_id), lines_of(client, gone.error_file_id)
        assert (len(output), len(errors)) == (counts.completed, counts.failed)
        assert {line["error"]["code"] for line in errors} == {"CANCELLED"}
        # Its lines take no device any more.
        quick = batch(client, [delayed(7)], endpoint="/v2/models/delay/infer")
        assert ended(client, quick).status == "completed"
        late = batch(client, [delayed(n) for n in range(10)], endpoint="/v1/rerank")
        refused = lines_of(client, ended(client, late).error_file_id)
        assert len(refused) == 10 and "is not that of its job, /v1/rerank" in refused[0]["error"]["message"]


@pytest.mark.parametrize(("asked", "part"), [
    ({"input_file_id": "file-999999"}, "no file 'file-999999'"),
    ({"input_file_id": "17"}, "no file '17'"),
    ({"endpoint": "/v1/models"}, "must be /v1/chat/completions"),
    ({"completion_window": "soon"}, "completion_window 'soon'"),
    ({"metadata": {"a=b": "c"}}, "label 'a=b=c'"),
    ({"metadata": {"a": "b" * 513}}, "its value 512 at most"),
])
def test_a_batch_that_cannot_be_says_why(client, asked, part):
    file = uploaded(client, [embedding("a", "b")])
    wanted = {"input_file_id": file.id, "endpoint": "/v1/embeddings", "completion_window": "24h", **asked}
    with pytest.raises(openai.BadRequestError) as refused:
        client.batches.create(**wanted)
    assert part in refused.value.message


def test_what_is_no_file_says_why(client, server):
    empty = client.files.create(file=("empty.jsonl", b""), purpose="batch")
    with pytest.raises(openai.BadRequestError, match="is empty"):
        client.batches.create(input_file_id=empty.id, endpoint="/v1/embeddings", completion_window="24h")
    for path in ("/v1/files/file-1x", "/v1/files/..%2f..%2fjobs.redb/content", "/v1/files/file-0-output/content", "/v1/batches/batch_0"):
        assert server.get(path)[0] == 404, path
    status, _, body = server.get("/v1/files", method="POST", body=b"{}", headers={"content-type": "application/json"})
    assert status == 400 and b"must be a form" in body
    form = b"--x\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--x--\r\n"
    status, _, body = server.get("/v1/files", method="POST", body=form, headers={"content-type": "multipart/form-data; boundary=x"})
    assert status == 400 and b"has no field 'file'" in body
    with pytest.raises(openai.BadRequestError, match="goes with it"):
        client.files.delete("file-0-output")
    with pytest.raises(openai.BadRequestError, match="order 'asc'"):
        client.files.list(order="asc")
    for path in ("/v1/batches/batch_+0", "/v1/batches/batch_00", "/v1/jobs/+0"):
        assert server.get(path)[0] in (400, 404) and b"job 0" not in server.get(path)[2], path
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.files.create(file=("a", b"b"), purpose="p" * 65)


def test_large_lines_and_answers_are_as_good_as_small_ones(client, server):
    def call(values):
        return {"url": "/v2/models/identity/infer", "body": {
            "inputs": [{"name": "INPUT0", "shape": [1, len(values)], "datatype": "FP32", "data": values}]}}

    before = contents(server)
    given = [[float(n + k) for k in range(60_000)] for n in range(4)] + [[1.0]]
    for lines in (given, given[:1]):
        file = uploaded(client, [call(values) for values in lines])
        made = client.batches.create(
            input_file_id=file.id, endpoint="/v2/models/identity/infer", completion_window="1h",
            extra_body={"output_expires_after": {"anchor": "created_at", "seconds": 5}},
        )
        client.files.delete(file.id)
        done = ended(client, made)
        assert (done.request_counts.completed, done.request_counts.failed) == (len(lines), 0)
        assert numbers(lines_of(client, done.output_file_id)) == lines
    assert len(contents(server)) > len(before) + 1
    serving.until(lambda: contents(server) <= before, "all of it to be forgotten", 60)


def table(client, text, path, name="rows.csv", **settings):
    file = client.files.create(file=(name, text.encode() if isinstance(text, str) else text), purpose="batch")
    made = client.batches.create(input_file_id=file.id, endpoint=path, completion_window="1h", **settings)
    client.files.delete(file.id)
    return ended(client, made)


def rows_of(client, file):
    return list(csv.DictReader(io.StringIO(client.files.content(file).text)))


def cut_upload(address, boundary, kept):
    """The beginning of an upload, after which the connection is closed."""
    head = f"--{boundary}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{kept}\"\r\n\r\n".encode()
    with socket.create_connection(address.rsplit(":", 1)) as cut:
        cut.sendall(
            f"POST /v1/files HTTP/1.1\r\nhost: {address}\r\ncontent-length: 9000000\r\n"
            f"content-type: multipart/form-data; boundary={boundary}\r\n\r\n".encode()
        )
        cut.sendall(head + b"x" * 2_000_000)


def test_what_broke_off_is_not_kept(client, server):
    before = contents(server)
    cut_upload(server.http, "b", "half.bin")
    files = jobs_wire.Files(server.grpc)
    with pytest.raises(grpc.RpcError) as refused:
        files.put([{"name": "half.bin", "piece": b"x" * 2_000_000}])
    assert refused.value.code().name == "INVALID_ARGUMENT" and "broke off" in refused.value.details()
    whole = files.put([{"name": "whole.bin", "piece": b"x" * 10}, {"piece": b"y", "is_whole": True}])
    assert files.read(whole.id) == b"x" * 10 + b"y"
    assert "half.bin" not in [file.filename for file in client.files.list()]
    client.files.delete(whole.id)
    serving.until(lambda: contents(server) == before, "what was staged to go")


def test_many_that_read_slowly_keep_nobody_waiting(client, server):
    body = bytes(8_000_000)
    kept = client.files.create(file=("large.bin", body), purpose="user_data")
    slow = []
    try:
        for _ in range(600):
            one = socket.create_connection(server.http.rsplit(":", 1))
            one.sendall(f"GET /v1/files/{kept.id}/content HTTP/1.1\r\nhost: {server.http}\r\n\r\n".encode())
            slow.append(one)
        assert client.files.content(kept.id).content == body
        assert ended(client, batch(client, [embedding("a", "b")])).status == "completed"
    finally:
        for one in slow:
            one.close()
        client.files.delete(kept.id)


def test_a_table_is_answered_with_a_table(client):
    out = io.StringIO()
    written = csv.writer(out)
    written.writerow(["id", "input", "model"])
    for place, text in enumerate(EXPECTED["text"]):
        written.writerow([f"a,{place}", text, "minilm"])
    written.writerow(["quoted", 'two\nlines, and "quotes"', "minilm"])
    written.writerow(["lost", "x", "nobody-has-this"])
    out.write("short,x\n")
    assert "custom_id has 257 bytes" in rows_of(client, table(
        client, f"custom_id,input,model\n{'x' * 257},a,minilm\n", "/v1/embeddings").error_file_id)[0]["error_message"]
    done = table(client, out.getvalue(), "/v1/embeddings")
    count = len(EXPECTED["text"]) + 1
    assert (done.request_counts.completed, done.request_counts.failed) == (count, 2)
    found = rows_of(client, done.output_file_id)
    assert [row["id"] for row in found] == [f"a,{place}" for place in range(count - 1)] + ["quoted"]
    assert list(found[0]) == ["id", "input", "model", "embedding"] and found[-1]["input"] == 'two\nlines, and "quotes"'
    got = np.array([json.loads(row["embedding"]) for row in found[:-1]], np.float32)
    assert np.abs(got - np.array(EXPECTED["embedding"], np.float32)).max() < 1e-4
    lost, short = rows_of(client, done.error_file_id)
    assert (lost["id"], lost["error_code"]) == ("lost", "NOT_FOUND") and "nobody-has-this" in lost["error_message"]
    assert short["id"] == "short" and "has 2 values, the file has 3 columns" in short["error_message"]


def test_a_column_is_an_input_of_the_model(client):
    text = "INPUT0,note\n" + "".join(f'"[{n}, {n}.5]",row {n}\n' for n in range(1500)) + "x,no number\n3,one\n"
    done = table(client, text, "/v2/models/identity/infer")
    assert (done.request_counts.completed, done.request_counts.failed) == (1501, 1)
    found = rows_of(client, done.output_file_id)
    assert list(found[0]) == ["INPUT0", "note", "OUTPUT0"] and len(found) == 1501
    assert [json.loads(row["OUTPUT0"]) for row in found[:-1]] == [[n, n + 0.5] for n in range(1500)]
    long = table(client, "INPUT0,note\n" + "".join(f'{n},"{"x" * 700_000}"\n' for n in range(7)), "/v2/models/identity/infer")
    assert [len(row["note"]) for row in rows_of(client, long.output_file_id)] == [700_000] * 7
    assert [row["note"] for row in found[:-1]] == [f"row {n}" for n in range(1500)] and found[-1]["OUTPUT0"] in ("3", "3.0")
    assert "'INPUT0' must be a number" in rows_of(client, done.error_file_id)[0]["error_message"]


def test_a_row_that_does_not_end_leaves_those_before_it(client):
    text = "INPUT0\n" + "".join(f"{n}\n" for n in range(300)) + '"' + "x" * (6 << 20)
    done = table(client, text, "/v2/models/identity/infer")
    assert done.status == "failed" and "is a quote not closed?" in done.errors.data[0].message
    count = done.request_counts.completed
    # On a busy machine the end of the file may be found before any row was run: then there is nothing to be left.
    found = rows_of(client, done.output_file_id) if done.output_file_id else []
    numbers_found = [float(row["OUTPUT0"]) for row in found]
    assert len(found) == count and numbers_found == sorted(set(numbers_found)) and all(n < 300 for n in numbers_found)


@pytest.mark.parametrize(("text", "path", "part"), [
    ("a,a\n1,2\n", "/v1/embeddings", "named 'a', each needs a name of its own"),
    ("other\n1\n", "/v2/models/identity/infer", "no column 'INPUT0'"),
    ("input\n\"" + "x" * (6 << 20), "/v1/embeddings", "is a quote not closed?"),
    (b"in\xff\n1\n", "/v1/embeddings", "first row is no UTF-8"),
])
def test_a_table_that_is_wrong_says_why(client, text, path, part):
    done = table(client, text, path)
    if done.status == "failed":
        assert part in done.errors.data[0].message
    else:
        assert part in rows_of(client, done.error_file_id)[0]["error_message"]


def test_a_long_line_fails_alone(client):
    line = {"url": "/v2/models/identity/infer", "body": delayed(1)["body"]}
    long = json.dumps(line) + " " * (5 << 20)
    done = ended(client, batch(client, [line, "x" * (3 << 20), long, line], endpoint="/v2/models/identity/infer"))
    assert (done.request_counts.completed, done.request_counts.failed) == (2, 2)
    assert [line["line"] for line in lines_of(client, done.output_file_id)] == [1, 4]
    errors = lines_of(client, done.error_file_id)
    assert [line["line"] for line in errors] == [2, 3] and all("too long" in line["error"]["message"] for line in errors)


def test_the_command_line_sends_a_file_and_reads_what_came_of_it(slow, tmp_path):
    def orion(*arguments, given=None):
        command = [str(serving.BINARY), "jobs", *arguments, "--server", slow.grpc]
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=60, env=serving.environment(), check=False
        )
        return done.returncode, done.stdout, done.stderr

    file = tmp_path / "bodies.jsonl"
    file.write_text("\n".join(json.dumps(delayed(n)["body"]) for n in range(5)))
    status, out, _ = orion("batch", str(file), "--path", "/v2/models/delay/infer", "--watch", "--label", "from=shell")
    assert status == 0 and "5 lines succeeded, 0 did not" in out
    job = out.split()[1]
    status, out, _ = orion("result", job)
    assert status == 0 and numbers([json.loads(line) for line in out.splitlines()]) == [[n] for n in range(5)]
    assert orion("result", job, "--errors") == (0, "", "")
    status, out, _ = orion("ls", "--of", job, "-o", "json")
    assert [one["row"]["line"] for one in json.loads(out)["jobs"]] == [5, 4, 3, 2, 1]
    status, out, _ = orion("ls", "-o", "json")
    assert [one["id"] for one in json.loads(out)["jobs"]] == [int(job)]
    status, out, error = orion("batch", "-", "--path", "/v1/embeddings", "--watch", given='{"input": "x"}\n')
    assert status == 1 and "1 of 1 lines" in error and "--errors" in error
    failed = out.split()[1]
    status, out, _ = orion("result", failed, "--errors")
    assert "names no model" in json.loads(out)["error"]["message"]
    file.write_text("\n".join(json.dumps(delayed(n)["body"]) for n in range(500)))
    status, out, _ = orion("batch", str(file), "--path", "/v2/models/delay/infer")
    assert orion("cancel", out.strip())[0] == 0
    status, _, error = orion("retry", out.strip())
    assert status == 1 and "is of a file" in error
    status, _, error = orion("batch", str(tmp_path / "none.jsonl"))
    assert status == 1 and "none.jsonl' cannot be read" in error
