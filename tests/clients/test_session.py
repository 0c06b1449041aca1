"""What a scheduler answers to workers it must not take."""

import json
import socket
import grpc
import pytest

import serving
from sessions import control, hello


def refusal(server, first):
    """The reason, whichever way it travels."""
    try:
        answer = control(server.session, first)
    except grpc.RpcError as error:
        assert error.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT), error
        return error.details()
    assert answer.WhichOneof("message") == "refused", answer
    return answer.refused.reason


def test_an_unknown_major_version_is_refused_by_name(server):
    reason = refusal(server, hello("stranger", major=999))
    assert "999" in reason and "1" in reason.replace("999", ""), reason
    assert "stranger" not in server.nodes()


@pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 129])
def test_a_name_that_is_a_path_is_refused(server, name):
    assert "name" in refusal(server, hello(name))


def test_a_newer_minor_version_is_taken(start):
    server = start("two")
    answer = control(server.session, hello("newer", minor=99))
    assert answer.WhichOneof("message") == "welcome", answer
    assert answer.welcome.session and answer.welcome.lease_ms >= 750 and answer.welcome.keepalive_ms <= 200
    serving.until(lambda: "newer" in server.nodes(), "the node to be listed")


def worker(tmp_path, addresses):
    """A worker that looks for schedulers at these addresses, and logs each try."""
    arguments = ["worker", "--join", addresses, "--name", "lone", "--data-dir", str(tmp_path / "lone")]
    return serving.Process([*arguments, "--log-format", "json", "--log", "debug"], tmp_path / "lone.log")


def test_a_worker_without_a_scheduler_keeps_trying_and_says_so_once(tmp_path):
    lone = worker(tmp_path, "127.0.0.1:1,127.0.0.1:2")

    def tries():
        lines = [line for line in lone.text().splitlines() if "scheduler_lost_will_keep_trying" in line]
        return [json.loads(line)["level"] for line in lines]

    serving.until(lambda: len(tries()) >= 6, "six tries")
    assert tries().count("WARN") == 2, "once for each address"
    lone.stop()


def test_a_worker_stops_while_a_silent_listener_holds_it(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        lone = worker(tmp_path, f"127.0.0.1:{silent.getsockname()[1]}")
        connection, _ = silent.accept()
        lone.stop()
        connection.close()


@pytest.mark.parametrize("key", [None, "", "0" * 32])
def test_another_workers_data_stream_cannot_be_opened(start, key):
    """The session's number is in `orion nodes`; without its key nobody gets that worker's requests."""
    server = start("two")
    number = server.nodes()["w1"]["session"]
    metadata = [("orion-session", str(number))] + ([("orion-session-key", key)] if key is not None else [])
    with grpc.insecure_channel(server.session) as channel:
        call = channel.stream_stream("/orion.session.v1.Session/Data", lambda frame: frame, lambda frame: frame)
        with pytest.raises(grpc.RpcError) as refused:
            next(call(iter(()), metadata=metadata, timeout=10))
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION, refused.value
    assert server.nodes()["w1"]["state"] == "ready"
