"""What a run of faults came to: pure figures from the requests, the faults and the scheduler's log."""

import bisect
import collections

from chaos_load import kind_of

# Within this of the level before a fault, over a second, attainment is called back to normal.
TOLERANCE = 0.01
GOALS = {"kill": 0.2, "stop": 1.0, "cut": 1.0}
BACK_GOAL = 2.0
TOTALS = (
    "attempts_retried", "batches_bisected", "batches_hedged", "results_dropped", "requests_queued", "requests_running",
)


def quantile(values, share):
    """The smallest value that so many are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))] if ordered else None


def spread(values):
    return {"count": len(values), "p50": quantile(values, 0.5), "p99": quantile(values, 0.99), "max": quantile(values, 1)}


def attained(one, deadline):
    return one.code == "OK" and one.settled - one.intended <= deadline


def share_on_time(requests, deadline, begin, end):
    """Of the calls that were due in that time; None if there were none. In a stream answers wait for those before them.

    `requests` are in the order in which they were due."""
    first, last = (bisect.bisect_left(requests, at, key=lambda one: one.intended) for at in (begin, end))
    due = [one for one in requests[first:last] if not one.streamed]
    return sum(attained(one, deadline) for one in due) / len(due) if due else None


def seconds_to_normal(requests, deadline, fault, begin, end):
    """From the loss until a second begins in which as many are answered on time as in the seconds before; None: never."""
    before = share_on_time(requests, deadline, max(begin, fault.begun - 3), fault.begun)
    at = 0.0
    while fault.begun + at + 1 <= end:
        now = share_on_time(requests, deadline, fault.begun + at, fault.begun + at + 1)
        if before is not None and now is not None and now >= before - TOLERANCE:
            return at
        at = round(at + 0.1, 1)
    return None


def suspected_after(fault, suspects):
    """Seconds until the worker was first suspected; None if it never was, which a short fault may be too short for."""
    seen = [event["at"] for event in suspects if fault.explains(event["worker"], event["at"])]
    return max(0.0, min(seen) - fault.begun) if seen else None


def suspicions(faults, suspects):
    """Seconds from each fault to its being noticed, by kind, and suspects that no fault explains."""
    noticed = {kind: [] for kind in sorted({fault.kind for fault in faults})}
    for fault in faults:
        if (after := suspected_after(fault, suspects)) is not None:
            noticed[fault.kind].append(after)
    false = [event for event in suspects if not any(fault.explains(event["worker"], event["at"]) for fault in faults)]
    return noticed, false


def unnoticed(fault, suspects):
    """A fault that lasted beyond its goal and was never noticed."""
    return suspected_after(fault, suspects) is None and fault.over - fault.begun > GOALS[fault.kind]


def report(requests, deadline, faults, suspects, status):
    """Everything that is printed, as one dictionary."""
    begin, end = requests[0].intended, requests[-1].intended
    suspects = [event for event in suspects if event["at"] >= begin]
    noticed, false = suspicions(faults, suspects)
    answered = [one for one in requests if one.code == "OK"]
    refused = [one for one in requests if one.code not in ("OK", "")]
    repeated = collections.Counter((one.code, kind_of(one.reason), one.idempotent) for one in refused)
    back = [seconds_to_normal(requests, deadline, fault, begin, end) for fault in faults]
    seconds = range(int(end - begin) + 1)
    twice = [one.number for one in requests if one.times_settled > 1 or one.mixed_up]
    return {
        "seconds": end - begin,
        "sent": len(requests),
        "answered": len(answered),
        "answered_late": sum(one.settled - one.intended > deadline for one in answered),
        "refused": [
            {"code": code, "reason": reason, "idempotent": idempotent, "count": count}
            for (code, reason, idempotent), count in repeated.most_common()
        ],
        "refused_late": sum(one.settled - one.sent > deadline + 0.25 for one in refused),
        "lost": [one.number for one in requests if one.times_settled == 0],
        "duplicated": twice,
        "totals": {key: status.get(key) for key in TOTALS},
        "faults": [
            {"kind": fault.kind, "worker": fault.worker, "at": fault.begun - begin,
             "lasted": fault.over - fault.begun, "suspected_after": suspected_after(fault, suspects),
             "ready_again": fault.well - fault.over, "back_to_normal": seconds}
            for fault, seconds in zip(faults, back)
        ],
        "suspected_after_seconds": {kind: spread(values) for kind, values in noticed.items()},
        "unnoticed": sum(unnoticed(fault, suspects) for fault in faults),
        "false_deaths": [
            {"worker": event["worker"], "at": event["at"] - begin, "reason": event["reason"]} for event in false
        ],
        "attainment": share_on_time(requests, deadline, begin, end + 1),
        "attainment_by_second": [share_on_time(requests, deadline, begin + n, begin + n + 1) for n in seconds],
        "back_to_normal_seconds": spread([seconds for seconds in back if seconds is not None]),
        "sender_late_seconds": spread([one.sent - one.intended for one in requests]),
    }


def goals(told):
    """(goal, whether it is met) of the times; those of a fault that did not happen are left out.

    A p99 of fewer than a hundred is their longest: that says less, so it is said."""
    for kind, seconds in GOALS.items():
        measured = told["suspected_after_seconds"].get(kind, {})
        if measured.get("p99") is not None:
            count = measured["count"]
            few = "" if count >= 100 else ", too few for more than their longest"
            yield f"{kind} to suspect within {seconds} s at p99 of {count}{few}", measured["p99"] <= seconds
    yield "every silence longer than that was noticed", told["unnoticed"] == 0
    # A fault so late that no second begins after it within the goal says nothing.
    judged = [fault["back_to_normal"] for fault in told["faults"] if fault["at"] + BACK_GOAL + 1 <= told["seconds"]]
    if judged:
        yield f"back to normal within {BACK_GOAL} s after each of {len(judged)}", all(back is not None and back <= BACK_GOAL for back in judged)
