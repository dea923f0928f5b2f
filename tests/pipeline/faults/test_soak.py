"""``make soak`` in short: nothing grows, the books close, and an overload is refused as it should be."""

import json
import subprocess
import sys

import pytest


def run(*options):
    """The figures of a run that found no problem."""
    result = subprocess.run(
        [sys.executable, "benchmarks/soak.py", *options], capture_output=True, text=True, timeout=150, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(result.stdout)


@pytest.mark.timeout(160)
def test_nothing_grows_and_the_books_close():
    """With a queue on disk and four reloads."""
    figures = run("--duration", "12")
    acknowledged, delivered = figures["acknowledged_items"], figures["delivered_items"]
    assert {signal: delivered[signal] for signal in ("traces", "logs")} == {
        signal: acknowledged[signal] for signal in ("traces", "logs")
    }
    assert all(delivered[signal] for signal in ("traces", "metrics", "logs"))


@pytest.mark.timeout(160)
def test_an_overload_is_refused_within_the_limit_and_memory_returns():
    """Every refusal says when to retry, and the backend is as busy as before."""
    figures = run("--duration", "12", "--overload", "--limit-mib", "220")
    assert figures["refused_requests"]
    assert figures["acknowledged_items"] == figures["delivered_items"]
