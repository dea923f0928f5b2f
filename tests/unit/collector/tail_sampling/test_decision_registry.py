"""The registry of sampling decisions."""

import numpy as np

from collector.tail_sampling.decision_registry import Decision, DecisionRegistry

IDS = np.array([[0, 1], [0, 2]], np.uint64)


def lookup(*decisions):
    return lambda ids: np.array(decisions, np.int8)[: len(ids)]


def test_an_unknown_id_has_no_decisions():
    registry = DecisionRegistry()
    assert registry.decisions("nobody", IDS) is None
    assert not registry.is_registered("nobody")
    registry.unregister("nobody", lookup())


def test_one_id_may_have_several_lookups():
    """A trace that one of them kept is kept; one that dropped a trace counts more than one that still holds it."""
    registry = DecisionRegistry()
    lookups = [lookup(Decision.DROPPED, Decision.PENDING), lookup(Decision.KEPT, Decision.UNKNOWN)]
    for each in lookups:
        registry.register("s", each)
    assert registry.decisions("s", IDS).tolist() == [Decision.KEPT, Decision.PENDING]
    registry.unregister("s", lookups[1])
    registry.unregister("s", lookups[1])
    assert registry.decisions("s", IDS).tolist() == [Decision.DROPPED, Decision.PENDING]
    registry.unregister("s", lookups[0])
    assert registry.decisions("s", IDS) is None
