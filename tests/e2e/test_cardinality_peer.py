"""Deleting ``user_id`` on the way to Prometheus: the results of the Go collector and of Tailrace next to the truth."""

import importlib.util
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "cardinality_vs_collector.py"


@pytest.fixture(scope="module")
def comparison():
    spec = importlib.util.spec_from_file_location("cardinality_vs_collector", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_sum_is_right_with_us_and_not_with_the_collector(comparison, server, tmp_path, monkeypatch):
    """With three sources and one restart, Tailrace counts every request.

    With the Go collector two of three users vanish, or the value jumps between processes.
    """
    server.binary("prometheus")
    server.binary("otelcol")
    monkeypatch.syspath_prepend(str(SCRIPT.parents[1]))
    outcomes = comparison.compare(tmp_path, turns=10)
    for service, result in outcomes.items():
        assert result.series == {"collector": 1, "tailrace": 1}, service
        assert result.last["tailrace"] == result.requests
        assert result.increase["tailrace"] == result.requests
        assert result.falls("tailrace") == 0
    users, pods = outcomes["users"], outcomes["pods"]
    # the first point of the request; bob and carol are nowhere
    assert users.last["collector"] == users.last_of_users["alice"]
    assert users.increase["collector"] < users.requests * 0.8
    assert pods.falls("collector") > 5  # each taken by Prometheus for a restart
    assert pods.increase["collector"] > pods.requests * 1.5
