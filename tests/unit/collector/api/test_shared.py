"""State that components share, found by typed keys."""

import pytest

from collector.api import Scope, SharedKey, SharedState

NAMES = SharedKey("names", list[str])
EVERYBODY = SharedKey("names", list[str], scope=Scope.SERVICE)


def test_a_value_is_created_once_per_scope():
    """The same name in two scopes is two values."""
    shared = SharedState()
    shared.get(NAMES).append("a")
    assert shared.get(NAMES) == ["a"]
    assert shared.get(EVERYBODY) == []


def test_components_share_what_their_service_passes_to_them():
    """Objects of one id share both scopes, objects of different ids only that of the service."""
    service, component = {}, {}
    first, second, other = SharedState(component, service), SharedState(component, service), SharedState({}, service)
    first.get(NAMES).append("a")
    first.get(EVERYBODY).append("b")
    assert (second.get(NAMES), other.get(NAMES)) == (["a"], [])
    assert second.get(EVERYBODY) == other.get(EVERYBODY) == ["b"]


def test_two_keys_of_one_name_are_refused():
    """A value of one type is never handed out as another."""
    shared = SharedState()
    shared.get(NAMES)
    with pytest.raises(ValueError, match="two shared keys are named 'names'"):
        shared.get(SharedKey("names", dict[str, int]))
