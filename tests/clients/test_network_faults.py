"""Networks that lose, hold back and break what they carry: no job is lost and none ends twice, as if nothing had been."""

import random
import subprocess
import sys

import grpc
import pytest

import outcomes
import serving
from fault_proxy import FaultProxy

sys.path.insert(0, str(serving.ROOT / "scripts"))

import jobs_wire  # noqa: E402

SEED = 20261128
KEYS = [f"letter {n}" for n in range(300)]
# Two at once take 40 ms, on each of two workers: three seconds for all.
SECONDS, ROWS = 0.04, 2
# A channel of its own, which connects again soon.
CHANNEL = [
    ("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 20), ("grpc.min_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 100),
]


@pytest.fixture
def through():
    """Makes proxies; those who use them are gone first."""
    proxies = []

    def one(target):
        proxies.append(FaultProxy(target))
        return proxies[-1]

    yield one
    for proxy in proxies:
        proxy.stop()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return {"delay": serving.simulated(tmp_path_factory.mktemp("models") / "delay", SECONDS, max_rows=ROWS)}


@pytest.fixture(scope="module")
def expected(tmp_path_factory, model):
    """What comes of the jobs where nothing fails."""
    server = serving.Server("two", tmp_path_factory.mktemp("oracle"), model)
    jobs = jobs_wire.Jobs(server.grpc)
    acknowledged = outcomes.many(jobs, KEYS, model="delay")
    found = outcomes.results(jobs, acknowledged)
    server.stop()
    outcomes.each_ended_once(outcomes.records(journal(server)), acknowledged)
    return found


def journal(server):
    return server.folder / "scheduler" / "jobs.redb"


def far(server):
    """What the scheduler says of the worker behind the proxy."""
    return server.nodes().get("far", {})


def is_lost(server, _):
    """Its lease has ended."""
    return far(server).get("state") == "dead"


def is_back(server, _):
    return far(server).get("sessions_opened", 0) > 1


def is_silent(server, _):
    return far(server).get("silent_seconds", 9) > 0.3


def goes_on(server, done):
    """A third of the jobs end meanwhile."""
    return len(jobs_wire.Jobs(server.grpc).list(state="succeeded", limit=1000).jobs) >= done + len(KEYS) // 3


@pytest.mark.parametrize(("fault", "seen"), [
    (["blackhole"], is_lost),
    (["half-open"], is_lost),
    (["half-open reverse"], is_lost),
    (["stall"], is_silent),
    (["stall"], is_lost),
    (["reset"], is_back),
    (["cut"], is_back),
    (["delay 300"], goes_on),
    (["rate 50000"], goes_on),
    (["refuse", "reset"], is_lost),
], ids=lambda value: ", ".join(value) if isinstance(value, list) else value.__name__)
def test_a_worker_behind_a_bad_network(fault, seen, through, start, model, expected):
    server = start("two", model)
    proxy = through(server.session)
    server.start(["worker", "--join", proxy.address, "--name", "far", "--data-dir", str(server.folder / "far")])
    serving.until(lambda: far(server).get("state") == "ready", "the worker behind the proxy")
    jobs = jobs_wire.Jobs(server.grpc)
    acknowledged = outcomes.many(jobs, KEYS, model="delay")
    serving.until(lambda: far(server)["batches_done"] > 0, "a batch of the worker behind the proxy")
    done = len(jobs.list(state="succeeded", limit=1000).jobs)
    if fault == ["cut"]:
        fault = [f"cut {random.Random(SEED).randrange(1, 2000)}"]
    print(f"{', '.join(fault)} with {done} of {len(KEYS)} jobs done")
    proxy.tell(*fault)
    serving.until(lambda: seen(server, done), f"what {fault} does")
    # What is submitted meanwhile is a job too.
    assert outcomes.many(jobs, KEYS, model="delay") == acknowledged
    more = [f"meanwhile {n}" for n in range(20)]
    meanwhile = outcomes.many(jobs, more, model="delay")
    proxy.tell("pass")
    serving.until(lambda: far(server).get("state") == "ready", "the worker to be back")
    # It is given work again, not only listed.
    before, late = far(server)["batches_done"], [f"late {n}" for n in range(100)]
    afterwards = outcomes.many(jobs, late, model="delay")
    serving.until(lambda: far(server)["batches_done"] > before, "a batch of the worker that is back")
    assert outcomes.results(jobs, acknowledged) == expected
    for some in (meanwhile, afterwards):
        assert list(outcomes.results(jobs, some).values()) == [[n] for n in range(len(some))]
    print(f"sessions opened: {far(server)['sessions_opened']}; {proxy.tell('count')}")
    server.stop()
    outcomes.each_ended_once(outcomes.records(journal(server)), {**acknowledged, **meanwhile, **afterwards})


@pytest.fixture
def behind(through, start, model):
    """A server, its jobs as they are seen through a proxy, and that."""
    server = start("two", model)
    proxy, jobs = through(server.grpc), jobs_wire.Jobs(server.grpc)
    jobs.channel = grpc.insecure_channel(proxy.address, options=CHANNEL)
    yield server, jobs, proxy
    jobs.channel.close()


def broken(chance):
    return chance.choice(["reset", f"cut {chance.randrange(0, 4000)}"])


def test_a_client_that_submits_again_until_it_is_acknowledged(behind, expected):
    server, jobs, proxy = behind
    chance, acknowledged, faults = random.Random(SEED), {}, []
    print(f"seed {SEED}")
    submit = jobs.call("Submit")
    while left := [(n, key) for n, key in enumerate(KEYS) if key not in acknowledged]:
        n, key = left[0]
        call = submit.future(jobs.spec([n], model="delay", idempotency_key=key), timeout=30, wait_for_ready=True)
        if chance.random() < 0.1:
            faults.append(broken(chance))
            proxy.tell(faults[-1])
        try:
            acknowledged[key] = call.result().id
        except grpc.RpcError as error:
            assert error.code().name == "UNAVAILABLE", error
    print(f"{len(faults)} faults, {proxy.tell('count')}")
    assert proxy.count()["connections"] > len(faults) / 2
    finished(server, acknowledged, expected)


def test_a_stream_of_submissions_that_breaks(behind, expected):
    server, jobs, proxy = behind
    chance, acknowledged, broke = random.Random(SEED + 1), {}, 0
    print(f"seed {SEED + 1}")
    stream = jobs.call("SubmitStream", "stream_stream")
    while left := [(n, key) for n, key in enumerate(KEYS) if key not in acknowledged]:
        at = chance.randrange(min(60, len(left)))

        def asked(left=left, at=at):
            for place, (n, key) in enumerate(left):
                if place == at and broke < 12:
                    proxy.tell(broken(chance))
                yield jobs.spec([n], model="delay", idempotency_key=key)

        try:
            answers = stream(asked(), timeout=30, wait_for_ready=True)
            for (_, key), answer in zip(left, answers, strict=True):
                assert answer.id, answer
                acknowledged[key] = answer.id
        except grpc.RpcError as error:
            assert error.code().name == "UNAVAILABLE", error
            broke += 1
    print(f"broke {broke} times, {proxy.tell('count')}")
    assert broke > 3
    finished(server, acknowledged, expected)


def finished(server, acknowledged, expected):
    jobs = jobs_wire.Jobs(server.grpc)
    assert outcomes.results(jobs, acknowledged) == expected
    assert outcomes.many(jobs, KEYS, model="delay") == acknowledged
    server.stop()
    outcomes.each_ended_once(outcomes.records(journal(server)), acknowledged)


@pytest.mark.parametrize("fault", ["reset", "cut 40"])
def test_a_watch_is_taken_up_again(behind, fault):
    server, jobs, proxy = behind
    # The last of these waits for the others.
    ids = [jobs.submit([n], model="delay") for n in range(100)]
    watch = jobs.call("Watch", "unary_stream")
    seen = watch(jobs.asked(ids[-1]), timeout=60)
    assert next(seen).state in ("queued", "running")
    proxy.tell(fault)
    with pytest.raises(grpc.RpcError) as lost:
        list(seen)
    assert lost.value.code().name == "UNAVAILABLE"
    again = list(watch(jobs.asked(ids[-1]), timeout=60, wait_for_ready=True))
    assert again[-1].state == "succeeded" and again[-1].attempt == 1
    # The command line takes it up by itself.
    last = [jobs.submit([n], model="delay") for n in range(100)][-1]
    # Nothing but the command's connection is carried from here on.
    jobs.channel.close()
    before = proxy.count()
    command = [str(serving.BINARY), "jobs", "watch", str(last), "--server", proxy.address]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=serving.environment(), **pipes) as run:
        counts = ("connections", "bytes_down")
        serving.until(lambda: all(proxy.count()[name] > before[name] for name in counts), "what the command is told")
        proxy.tell(fault)
        assert jobs_wire.Jobs(server.grpc).get(last).state in ("queued", "running")
        told, _ = run.communicate(timeout=60)
    assert run.returncode == 0 and "succeeded" in told, told
    assert proxy.count()["connections"] > before["connections"] + 1


ACKNOWLEDGED = {"a": 1, "b": 2}
RECORDS = [
    {"record": 0, "unix_ms": 5, "event": "epoch", "epoch": 1},
    {"record": 1, "unix_ms": 5, "event": "submitted", "job": 1, "key": "a"},
    {"record": 2, "unix_ms": 6, "event": "submitted", "job": 2, "key": "b"},
    {"record": 3, "unix_ms": 7, "event": "ended", "job": 1, "code": ""},
    {"record": 4, "unix_ms": 8, "event": "ended", "job": 2, "code": ""},
]


@pytest.mark.parametrize(("change", "words"), [
    ([{"event": "ended", "job": 1, "code": ""}], "not one outcome"),
    ([{"event": "ended", "job": 2, "code": "UNAVAILABLE"}], "not one outcome"),
    ([{"event": "submitted", "job": 5, "key": "c"}], "not one outcome"),
    ([{"event": "submitted", "job": 5, "key": "a"}, {"event": "ended", "job": 5, "code": ""}], "more than one job"),
    ([{"event": "epoch", "epoch": 2, "unix_ms": 7}], "older"),
    ([{"event": "epoch", "epoch": 2, "record": 6}], "missing"),
])
def test_the_check_sees_what_is_wrong(change, words):
    outcomes.each_ended_once(RECORDS, ACKNOWLEDGED)
    doctored = [{"record": len(RECORDS) + place, "unix_ms": 9, **record} for place, record in enumerate(change)]
    with pytest.raises(AssertionError, match=words):
        outcomes.each_ended_once(RECORDS + doctored, ACKNOWLEDGED)
    with pytest.raises(AssertionError, match="not the key's job"):
        outcomes.each_ended_once(RECORDS, {**ACKNOWLEDGED, "b": 3})
    with pytest.raises(AssertionError, match="jobs that failed"):
        outcomes.each_ended_once([*RECORDS[:4], {**RECORDS[4], "code": "INTERNAL"}], ACKNOWLEDGED)
