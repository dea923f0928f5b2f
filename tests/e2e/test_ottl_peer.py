"""Statements beside the Go collector's transform processor: the recorded results are still its own, and ours."""

import random

import pytest
from ottl_cases import Case, cases, golden, ours, theirs

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def test_statements_do_what_they_do_in_the_go_collector(server):
    """The same requests come out, or both refuse; what differs is stated with its reason, and is recorded."""
    listed = cases()
    recorded = golden()
    faults = []
    for case, outcome in zip(listed, theirs(str(server.binary("ottl")), listed), strict=True):
        if outcome.key != recorded[case.line] and not case.difference:
            faults.append(f"{case.line}: recorded {recorded[case.line]}, now {outcome.key} {outcome.detail}")
        own = ours(case)
        if own.refused and "which is not installed" in own.detail:
            continue
        if (own == outcome) == bool(case.difference):
            faults.append(f"{case.line}: ours {own.key} {own.detail}, theirs {outcome.key} {outcome.detail}")
    assert not faults, "\n".join(faults)


def sequences(count):
    """Random sequences of statements whose results are deterministic and do not depend on the order of attributes."""
    rng = random.Random(20)
    recorded = golden()
    pool = [
        case
        for case in cases()
        if not case.difference
        and recorded[case.line] != ["refused"]
        and not any(word in case.line for word in ("XML", "XXH", "Murmur3", "UserAgent", "limit(", "copy_metric"))
    ]
    for _ in range(count):
        first = rng.choice(pool)
        context = first.group.get("context")
        mates = [case for case in pool if case.signal == first.signal and case.group.get("context") == context]
        chosen = [first, *rng.sample(mates, min(len(mates), rng.randint(1, 4)))]
        statements = [statement for case in chosen for statement in case.group["statements"]]
        yield Case(" ;; ".join(statements), first.signal, {**first.group, "statements": statements})


def test_sequences_do_what_they_do_in_the_go_collector(server):
    """Statement by statement on all rows gives what the Collector gets row by row."""
    listed = list(sequences(300))
    faults = [
        f"{case.line}: ours {own.key} {own.detail}, theirs {outcome.key} {outcome.detail}"
        for case, outcome in zip(listed, theirs(str(server.binary("ottl")), listed), strict=True)
        if (own := ours(case)) != outcome and not outcome.digest.startswith("invalid")
    ]
    assert not faults, "\n".join(faults)
