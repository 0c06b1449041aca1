"""The proxy itself: what each of its commands does to two sockets, or the tests behind it would show nothing."""

import socket
import threading
import time

import pytest

import serving
from fault_proxy import FaultProxy


class Pair:
    """A client's and a target's sockets, with the proxy between."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.proxy = FaultProxy("%s:%s" % self.listener.getsockname())
        self.sockets = [self.listener]
        self.client, self.target = self.connect()

    def dial(self):
        host, port = self.proxy.address.split(":")
        client = socket.create_connection((host, int(port)), 10)
        self.sockets.append(client)
        return client

    def connect(self):
        client = self.dial()
        self.listener.settimeout(10)
        target, _ = self.listener.accept()
        target.settimeout(10)
        self.sockets.append(target)
        return client, target


@pytest.fixture
def pair():
    one = Pair()
    yield one
    for each in one.sockets:
        each.close()
    one.proxy.stop()


def whole(receiver, size):
    got = b""
    while len(got) < size:
        some = receiver.recv(size - len(got))
        assert some, f"it ended after {len(got)} of {size} bytes"
        got += some
    return got


def carries(sender, receiver, sent=b"word"):
    sender.sendall(sent)
    return whole(receiver, len(sent)) == sent


def hears_nothing(receiver):
    receiver.settimeout(0.2)
    with pytest.raises(TimeoutError):
        receiver.recv(1)
    receiver.settimeout(10)
    return True


def is_silent(sender, receiver):
    sender.sendall(b"word")
    return hears_nothing(receiver)


def is_reset(receiver):
    with pytest.raises(ConnectionResetError):
        while True:
            assert receiver.recv(4096), "it was closed, not reset"
    return True


def is_refused(pair):
    # A reset may come before the connection is seen to be there.
    with pytest.raises(ConnectionResetError):
        assert pair.dial().recv(1), "it was closed, not reset"
    return True


def test_it_passes_all_on_and_ends_as_its_ends_do(pair):
    sent = bytes(range(256)) * 4000
    thread = threading.Thread(target=pair.client.sendall, args=(sent,))
    thread.start()
    assert whole(pair.target, len(sent)) == sent
    thread.join()
    assert carries(pair.target, pair.client)
    pair.client.shutdown(socket.SHUT_WR)
    assert pair.target.recv(1) == b""
    assert carries(pair.target, pair.client)
    pair.target.close()
    assert pair.client.recv(1) == b""
    assert pair.proxy.count() == {"connections": 1, "bytes_up": len(sent), "bytes_down": 8}


def test_a_reset_is_seen_at_both_ends_also_where_nothing_was_said(pair):
    busy = pair.connect()
    assert carries(*busy)
    pair.proxy.tell("reset")
    assert all(is_reset(end) for end in (pair.client, pair.target, *busy))
    assert carries(*pair.connect())


def test_a_connection_is_cut_after_some_bytes(pair):
    pair.proxy.tell("cut 10")
    pair.client.sendall(b"0123456789abcdef")
    assert whole(pair.target, 10) == b"0123456789"
    assert is_reset(pair.target) and is_reset(pair.client)
    assert pair.proxy.count()["bytes_up"] == 10
    assert carries(*pair.connect(), b"more than ten bytes")


def test_what_a_black_hole_swallowed_is_gone(pair):
    pair.proxy.tell("blackhole")
    new = pair.dial()
    assert is_silent(pair.client, pair.target) and is_silent(pair.target, pair.client)
    assert hears_nothing(new)
    pair.proxy.tell("pass")
    assert is_silent(pair.client, pair.target) and is_silent(pair.target, pair.client)
    pair.client.close()
    assert hears_nothing(pair.target)
    pair.listener.accept()
    assert carries(*pair.connect())


@pytest.mark.parametrize(("command", "dead", "alive"), [
    ("half-open", ("target", "client"), ("client", "target")),
    ("half-open reverse", ("client", "target"), ("target", "client")),
])
def test_one_direction_is_swallowed(pair, command, dead, alive):
    def ends(names):
        return [getattr(pair, name) for name in names]

    pair.proxy.tell(command)
    assert is_silent(*ends(dead)) and carries(*ends(alive))
    pair.proxy.tell("pass")
    assert is_silent(*ends(dead)) and carries(*ends(alive))
    assert carries(*pair.connect())


def test_after_a_stall_all_goes_on(pair):
    pair.proxy.tell("stall")
    assert is_silent(pair.client, pair.target) and is_silent(pair.target, pair.client)
    late = pair.dial()
    late.sendall(b"late")
    pair.proxy.tell("pass")
    assert whole(pair.target, 4) == whole(pair.client, 4) == b"word"
    target, _ = pair.listener.accept()
    assert whole(target, 4) == b"late"
    target.close()


def test_what_is_refused_is_reset_and_what_is_open_goes_on(pair):
    pair.proxy.tell("refuse")
    assert is_refused(pair)
    assert carries(pair.client, pair.target)
    pair.proxy.tell("pass")
    assert carries(*pair.connect())


def test_nobody_at_the_target_resets_the_client(pair):
    pair.listener.close()
    assert is_refused(pair)


def test_a_delay_keeps_the_order_and_a_rate_the_pace(pair):
    pair.proxy.tell("delay 100")
    began = time.monotonic()
    for n in range(100):
        pair.client.sendall(bytes([n]))
    assert whole(pair.target, 100) == bytes(range(100))
    # Never sooner, whatever the machine does.
    assert time.monotonic() - began > 0.1
    pair.proxy.tell("rate 20000")
    began = time.monotonic()
    assert carries(pair.target, pair.client, b"x" * 10_000)
    assert time.monotonic() - began > 0.3


def test_wrong_commands_are_answered_with_the_right_ones(pair):
    for command in ("blackhol", "delay", "delay soon", "rate 0", ""):
        with pytest.raises(AssertionError, match="error: "):
            pair.proxy.tell(command)
    assert carries(pair.client, pair.target)
