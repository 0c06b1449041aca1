"""What a scheduler answers to workers it must not take."""

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
