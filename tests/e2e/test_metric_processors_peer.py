"""Metric processors beside the Go collector's: the recorded results are still its own."""

import pytest
from metric_processor_cases import cases, digest, golden, theirs

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def test_the_recorded_transformations_are_the_go_collectors(server):
    """What the unit tests compare ours with is what the Collector does today."""
    listed = cases()
    results = theirs(server.binary("metric_processors"), [transforms for _, transforms, _ in listed])
    assert {name: digest(text) for (name, _, _), text in zip(listed, results, strict=True)} == golden()
