"""The decisions of sampling, looked up by component id."""

import numpy as np

from collector.tail_sampling.decision_registry import Decision, DecisionRegistry

IDS = np.array([[0, 1], [0, 2]], np.uint64)


def answering(*answer):
    return lambda ids: np.array(answer, np.int8)[: len(ids)]


def test_nobody_answers_for_an_unknown_id():
    decisions = DecisionRegistry()
    assert decisions.lookup("nobody", IDS) is None
    assert not decisions.is_registered("nobody")
    decisions.unregister("nobody", answering())


def test_several_pipelines_answer_for_one_id():
    """Kept by one is kept; one that still holds a trace counts less than one that dropped it."""
    decisions = DecisionRegistry()
    answers = [answering(Decision.DROPPED, Decision.PENDING), answering(Decision.KEPT, Decision.UNKNOWN)]
    for answer in answers:
        decisions.register("s", answer)
    assert decisions.lookup("s", IDS).tolist() == [Decision.KEPT, Decision.PENDING]
    decisions.unregister("s", answers[1])
    decisions.unregister("s", answers[1])
    assert decisions.lookup("s", IDS).tolist() == [Decision.DROPPED, Decision.PENDING]
    decisions.unregister("s", answers[0])
    assert decisions.lookup("s", IDS) is None
