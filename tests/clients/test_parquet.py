"""Files of Parquet as jobs, written and read with pyarrow: in every way that it writes them, and made to be wrong."""

import csv
import decimal
import io
import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import serving
from serving import EXPECTED
from test_batches import client, client_of, contents, ended, slow  # noqa: F401

INFER = "/v2/models/identity/infer"


def written(table, **settings):
    out = io.BytesIO()
    pq.write_table(table, out, **settings)
    return out.getvalue()


def done_of(client, content, path, name="rows.parquet"):
    file = client.files.create(file=(name, content), purpose="batch")
    made = client.batches.create(input_file_id=file.id, endpoint=path, completion_window="1h")
    client.files.delete(file.id)
    return ended(client, made)


def table_of(client, file):
    return pq.read_table(io.BytesIO(client.files.content(file).content))


def counts(done):
    return done.request_counts.completed, done.request_counts.failed


def test_a_table_is_answered_with_a_table(client):
    texts = [*EXPECTED["text"], "x", None]
    count = len(EXPECTED["text"])
    table = pa.table({
        "id": pa.array(range(count + 2), pa.uint64()),
        "input": texts,
        "model": ["minilm"] * count + ["nobody-has-this", "minilm"],
        "when": pa.array([1_700_000_000_000 + n for n in range(count + 2)], pa.timestamp("ms")),
        "tags": [[["a", None], [], None][n % 3] for n in range(count + 2)],
    })
    done = done_of(client, written(table), "/v1/embeddings")
    assert counts(done) == (count, 2)
    found = table_of(client, done.output_file_id)
    assert found.column_names == [*table.column_names, "embedding"]
    assert found.drop_columns(["embedding"]).equals(table.slice(0, count)), "its own columns are as they were"
    assert found.schema.field("embedding").type.value_type == pa.float32()
    got = np.array(found["embedding"].to_pylist(), np.float32)
    assert np.abs(got - np.array(EXPECTED["embedding"], np.float32)).max() < 1e-4
    wrong = table_of(client, done.error_file_id)
    assert wrong.column_names == [*table.column_names, "error_code", "error_message"]
    assert wrong["error_code"].to_pylist() == ["NOT_FOUND", "INVALID_ARGUMENT"]


@pytest.mark.parametrize("settings", [
    {"compression": "none", "use_dictionary": False},
    {"compression": "snappy", "row_group_size": 100},
    {"compression": "gzip", "data_page_version": "2.0"},
    {"compression": "zstd", "data_page_size": 512, "write_batch_size": 16},
    {"compression": "lz4", "write_page_index": True, "write_statistics": True},
    {"compression": "snappy", "use_dictionary": False, "column_encoding": {
        "INPUT0.list.element": "BYTE_STREAM_SPLIT", "number": "DELTA_BINARY_PACKED", "note": "PLAIN"}},
], ids=str)
def test_whatever_it_is_written_like(client, settings):
    rows = 1500
    table = pa.table({
        "INPUT0": pa.array([[n, n + 0.5][: 1 + n % 2] for n in range(rows)], pa.list_(pa.float32())),
        "number": pa.array([n * n for n in range(rows)], pa.int64()),
        "note": [f"row {n % 37}" if n % 3 else None for n in range(rows)],
        "small": pa.array([n % 2 == 0 for n in range(rows)]),
        "fixed": pa.array([n.to_bytes(4, "big") for n in range(rows)], pa.binary(4)),
        "INPUT0_tags": [[f"t{n}", None][: n % 3] if n % 5 else None for n in range(rows)],
    })
    done = done_of(client, written(table, **settings), INFER)
    assert counts(done) == (rows, 0)
    found = table_of(client, done.output_file_id)
    assert found.drop_columns(["OUTPUT0"]).equals(table)
    assert found["OUTPUT0"].to_pylist() == table["INPUT0"].to_pylist()
    assert done.error_file_id is None


def test_an_empty_answer_is_a_table_too(client):
    done = done_of(client, written(pa.table({"INPUT0": pa.array([], pa.float32())})), INFER)
    assert done.status == "completed" and counts(done) == (0, 0)
    found = table_of(client, f"file-{done.id.removeprefix('batch_')}-output")
    assert (found.num_rows, found.column_names) == (0, ["INPUT0"])


def test_values_that_are_wrong_fail_alone(client):
    table = pa.table({"INPUT0": [[1.0], None, [], [2.0]], "text": ["a", "b", "c", "d"]})
    done = done_of(client, written(table), INFER)
    assert done.status == "completed" and sum(counts(done)) == 4 and done.request_counts.completed >= 2
    wrong = table_of(client, done.error_file_id)
    assert "b" in wrong["text"].to_pylist() and "'INPUT0' is empty" in wrong["error_message"].to_pylist()[0]
    binary = pa.table({"input": pa.array([b"\xff\xfe", b"text"], pa.binary()), "model": ["minilm", "minilm"]})
    done = done_of(client, written(binary), "/v1/embeddings")
    assert counts(done) == (1, 1)
    assert "'input' cannot be taken: it is no UTF-8" in table_of(client, done.error_file_id)["error_message"].to_pylist()[0]


@pytest.mark.parametrize(("content", "part"), [
    (b"id,text\n1,one\n", "no Parquet"),
    (written(pa.table({"a": [{"b": 1}]})), "'a' must be a value or a list of values"),
    (written(pa.table({"a": [[[1]]]})), "'a' must be a value or a list of values"),
    (written(pa.table({"a": ["x"] * 9}), use_dictionary=False, column_encoding={"a": "DELTA_BYTE_ARRAY"}), "PLAIN"),
    (written(pa.table({"a": [1, 2, 3]}))[:-20], "no Parquet"),
])
def test_a_file_that_is_wrong_says_why(client, content, part):
    done = done_of(client, content, INFER)
    assert done.status == "failed" and part in done.errors.data[0].message, done.errors


def test_pages_that_unpack_to_much_are_refused(client):
    """A page of 300 MB that is a few kilobytes in its file, and one list of 30 million values."""
    bombs = [
        pa.table({"a": ["x" * 300_000_000]}),
        pa.table({"a": [np.zeros(30_000_000, np.float32)]}),
    ]
    for table in bombs:
        content = written(table, compression="zstd", use_dictionary=False, data_page_size=1 << 30)
        assert len(content) < 2_000_000
        done = done_of(client, content, INFER)
        assert done.status == "failed" and "write smaller" in done.errors.data[0].message, done.errors


def peak(server):
    """MiB that the scheduler has had in memory at most."""
    status = open(f"/proc/{server.scheduler.child.pid}/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def test_little_that_is_much_takes_no_memory(slow):
    """Lists of millions of the same texts in many columns, and pages that rows of long texts would hold; also where it is read."""
    with client_of(slow.http) as client:
        texts = pa.table({f"c{n}": [["x"] * 4_000_000] for n in range(8)})
        short, long = [[1.0]] * 40, ["y" * 25_000_000, "z"] * 20
        pages = pa.table({"INPUT0": pa.array(short, pa.list_(pa.float32())), "beside": long})
        settings = {"compression": "zstd", "use_dictionary": False, "data_page_size": 1, "write_batch_size": 1}
        for content, is_read in ((written(texts, compression="zstd"), False), (written(pages, **settings), True)):
            assert len(content) < 1_000_000
            before = peak(slow)
            done = done_of(client, content, INFER)
            assert done.status == ("completed" if is_read else "failed"), done.errors
            if is_read:
                found = table_of(client, done.output_file_id)
                assert [len(text) for text in found["beside"].to_pylist()] == [len(text) for text in long]
            else:
                assert "write smaller pages or lists" in done.errors.data[0].message
            print(f"{before} MiB before, then {peak(slow)}")
            assert peak(slow) < before + 900, "MiB"


def test_what_is_only_beside_may_be_anything(client):
    table = pa.table({
        "INPUT0": [[1.5]] * 3, "bytes": pa.array([b"\xff\xfe"] * 3, pa.binary()), "long": ["x" * 3_000_000] * 3,
        "money": pa.array([decimal.Decimal("1.50")] * 3, pa.decimal128(5, 2)), "nan": [float("nan")] * 3,
    })
    done = done_of(client, written(table), INFER)
    assert counts(done) == (3, 0)
    found = table_of(client, done.output_file_id)
    assert found.drop_columns(["OUTPUT0", "nan"]).equals(table.drop_columns(["nan"]))


@pytest.mark.parametrize(("values", "part"), [
    (pa.array([decimal.Decimal("1.50")], pa.decimal128(5, 2)), "decimal"),
    (pa.array([float("nan")], pa.float32()), "not finite"),
    (pa.array([b"1234"], pa.binary(4)), "has no JSON"),
    (pa.array([[1.0] * 600_000], pa.list_(pa.float32())), "it may have"),
])
def test_an_input_that_cannot_be_one_says_why(client, values, part):
    done = done_of(client, written(pa.table({"INPUT0": values})), INFER)
    assert counts(done) == (0, 1)
    assert part in table_of(client, done.error_file_id)["error_message"].to_pylist()[0]


def test_answers_of_several_kinds_are_read(client):
    table = pa.table({"input": ["a", "b", "c"], "model": ["minilm"] * 3, "encoding_format": [None, "base64", None]})
    done = done_of(client, written(table), "/v1/embeddings")
    assert counts(done) == (3, 0)
    found = table_of(client, done.output_file_id)["embedding"].to_pylist()
    assert len(json.loads(found[0])) == 384 and found[1][:2] != "[0"
    mixed = done_of(client, written(pa.table({"INPUT0": ["1.5", "[1, 2]"]})), INFER)
    assert table_of(client, mixed.output_file_id)["OUTPUT0"].to_pylist() == [[1.5], [1.0, 2.0]]


def test_rows_that_a_few_bytes_say_are_refused(client):
    content = written(pa.table({"INPUT0": pa.array(np.zeros(3_000_000, bool))}), compression="zstd", row_group_size=1 << 30)
    assert len(content) < 1_000_000
    done = done_of(client, content, INFER)
    assert done.status == "failed" and "3000000 rows" in done.errors.data[0].message


def test_damaged_files_end_with_an_error_or_rows(client):
    rows = 200
    table = pa.table({"INPUT0": pa.array([[n / 2] for n in range(rows)], pa.list_(pa.float32())), "note": ["x"] * rows})
    content = written(table, compression="snappy", data_page_size=256)
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(25):
        damaged = bytearray(content)
        for _ in range(chance.randrange(1, 5)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        done = done_of(client, bytes(damaged), INFER)
        assert done.status in ("completed", "failed")


def test_each_row_once_whoever_is_killed(slow):
    """The scheduler dies while rows are taken up, and goes on in the middle of a group of rows."""
    rows = 1200
    table = pa.table({"INPUT0": pa.array([[float(n)] for n in range(rows)], pa.list_(pa.float32())), "n": range(rows)})
    with client_of(slow.http) as client:
        file = client.files.create(file=("rows.parquet", written(table, row_group_size=700)), purpose="batch")
        made = client.batches.create(input_file_id=file.id, endpoint="/v2/models/delay/infer", completion_window="1h")
        for kill in range(3):
            completed = lambda: client.batches.retrieve(made.id).request_counts.completed  # noqa: E731
            serving.until(lambda kill=kill: completed() > 150 * (kill + 1), f"some rows before kill {kill}", 60)
            slow.scheduler.kill()
            slow.start_scheduler()
            slow.until_ready()
        done = ended(client, made)
        assert counts(done) == (rows, 0)
        found = table_of(client, done.output_file_id)
    assert found["n"].to_pylist() == list(range(rows))
    assert [row[0] for row in found["OUTPUT0"].to_pylist()] == [float(n) for n in range(rows)]


def test_large_rows_are_kept_beside_the_journal_for_as_long_as_their_job(slow):
    """A row of 200 KB, after a kill of the scheduler too, and in each format of tables."""
    long = [[float(n + place) for place in range(20_000)] for n in range(40)]
    table = pa.table({"INPUT0": pa.array(long, pa.list_(pa.float32())), "n": range(40)})
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(table.column_names)
    writer.writerows(zip(long, range(40), strict=True))
    with client_of(slow.http) as client:
        before = contents(slow)
        for name, content in (("rows.parquet", written(table)), ("rows.csv", text.getvalue().encode())):
            file = client.files.create(file=(name, content), purpose="batch")
            path = {"path": "/v2/models/delay/infer", "file_id": file.id}
            job = json.loads(slow.get("/v1/jobs", method="POST", body=json.dumps({"file": path, "keep_ms": 10_000}), headers={
                "content-type": "application/json"})[2])["id"]
            client.files.delete(file.id)
            made = f"batch_{job}"
            serving.until(lambda made=made: client.batches.retrieve(made).request_counts.completed > 3, "some rows", 60)
            slow.scheduler.kill()
            slow.start_scheduler()
            slow.until_ready()
            # The file, and its rows in groups; none of them is in the journal.
            assert len(contents(slow)) > len(before) + 2
            done = ended(client, client.batches.retrieve(made))
            assert counts(done) == (40, 0)
            output = client.files.content(done.output_file_id)
            if name.endswith("parquet"):
                assert pq.read_table(io.BytesIO(output.content))["OUTPUT0"].to_pylist() == long
        serving.until(lambda: contents(slow) <= before, "all of it to be forgotten", 60)
