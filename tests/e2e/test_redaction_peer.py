"""Redactions beside the Go collector's processor: the recorded results are still its own, and ours."""

import pytest
import redaction_cases

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def test_redactions_are_those_of_the_go_collector(server):
    """Row by row, over the same requests."""
    recorded = redaction_cases.golden()
    found = redaction_cases.theirs(str(server.binary("ottl")))
    faults = [
        f"{case}: recorded {recorded.get(case)}"
        for case, rows in found.items()
        if redaction_cases.digest(rows) != recorded.get(case)
    ]
    for signal, name in redaction_cases.CASES:
        own, theirs = redaction_cases.ours(signal, redaction_cases.CONFIGS[name]), found[f"{signal}: {name}"]
        faults += [
            f"{signal}, {name}, row {row}: ours {one}, theirs {other}"
            for row, (one, other) in enumerate(zip(own, theirs, strict=True))
            if one != other
        ]
    assert not faults, "\n".join(faults[:20])
