"""What a replay came to: pure figures from a trace and what its client noted."""

from chaos_report import quantile

# A sender that is later than this did not get the processor; nor, then, did the scheduler.
DISTURBED_SECONDS = 0.02


def cut(trace, seconds):
    """The first part of a trace. What no schedule can pass is not known of it."""
    kept = [arrival for arrival in trace["arrivals"] if arrival[0] < seconds * 1e3]
    if not kept or kept[-1][0] < trace["warm_ms"]:
        warm = trace["warm_ms"] / 1e3
        raise SystemExit(f"--limit-seconds {seconds:g} leaves nothing to count: arrivals count after {warm:g} s")
    # The simulation wants a bound; its of_bound is not taken.
    return {**trace, "arrivals": kept, "lp_bound_requests": 1.0}


def undisturbed(trace, slow, client):
    """Counted arrivals in the half seconds of the clock in which the sender was on time: else others had the machine."""
    spans = {}
    for index, (at, _) in enumerate(trace["arrivals"]):
        if at >= trace["warm_ms"]:
            spans.setdefault(int(at * slow / 500), []).append(index)
    on_time = [span for span in spans.values() if max(client.late[index] for index in span) <= DISTURBED_SECONDS]
    return [index for span in on_time for index in span]


def figures(trace, slow, client, bounded):
    window = trace["slo_ms"] * slow / 1e3
    counted = [index for index, (at, _) in enumerate(trace["arrivals"]) if at >= trace["warm_ms"]]
    answered = [client.latency[index] for index in counted if client.latency[index] is not None]
    on_time = sum(latency <= window for latency in answered)
    late = [client.late[index] for index in counted]
    calm = undisturbed(trace, slow, client)
    calmly = sum(client.latency[i] is not None and client.latency[i] <= window for i in calm)
    kindly = sum(client.latency[i] is not None and client.latency[i] - client.late[i] <= window for i in counted)
    ms = 1e3 / slow
    return {
        "counted": len(counted),
        "answered": len(answered),
        "attainment": on_time / len(counted),
        "attainment_from_sending": kindly / len(counted),
        "undisturbed": {"counted": len(calm), "attainment": calmly / len(calm) if calm else None},
        "of_bound": on_time / trace["lp_bound_requests"] if bounded else None,
        "p50_ms": quantile(answered, 0.5) * ms if answered else None,
        "p99_ms": quantile(answered, 0.99) * ms if answered else None,
        "refused": [{"code": code, "reason": reason, "count": n} for (code, reason), n in client.refused.most_common()],
        "lost": client.lost,
        "sender_late_ms": {"p50": quantile(late, 0.5) * 1e3, "p99": quantile(late, 0.99) * 1e3, "max": max(late) * 1e3},
    }
