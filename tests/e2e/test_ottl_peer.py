"""Statements beside the Go collector's transform processor: the recorded results are still its own, and ours."""

import pytest
from ottl_cases import cases, golden, ours, theirs

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
