"""State that several component objects share, found by typed keys instead of module globals.

A processor is one object per pipeline; its objects of one id sometimes need to know each other. Other state belongs to
the whole service, whatever the id. Both kinds are declared once, as a constant, and looked up by that constant::

    SAMPLERS: Final = SharedKey("sampling.samplers", list[TailSampler])
    DECISIONS: Final = SharedKey("sampling.decisions", DecisionRegistry, scope=Scope.SERVICE)

    settings.shared.get(SAMPLERS).append(self)

Nothing here is written to disk; what survives a reload of the configuration is stated by the scope.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

__all__ = ["Scope", "SharedKey", "SharedState"]

T = TypeVar("T")


class Scope(StrEnum):
    """Who shares a value, and for how long.

    >>> SharedKey("example.budget", dict[str, int], scope=Scope.SERVICE).scope.value
    'service'
    """

    COMPONENT = "component"
    """All objects of one component id in one configuration; made anew by a reload."""
    SERVICE = "service"
    """All objects of the service; kept when the configuration is reloaded."""


@dataclass(frozen=True, slots=True)
class SharedKey(Generic[T]):
    """Declares one shared value: its name (unique within its scope), how it is made, and who shares it.

    >>> COUNTS = SharedKey("example.counts", dict[str, int])
    >>> shared = SharedState()
    >>> shared.get(COUNTS)["checkout"] = 2
    >>> shared.get(COUNTS)
    {'checkout': 2}
    """

    name: str
    create: Callable[[], T]
    scope: Scope = Scope.COMPONENT


class SharedState:
    """The shared values that one component can reach.

    >>> NAMES = SharedKey("example.names", list[str])
    >>> shared = SharedState()
    >>> shared.get(NAMES).append("a")
    >>> shared.get(NAMES)
    ['a']
    """

    def __init__(self, by_component: dict[str, Any] | None = None, by_service: dict[str, Any] | None = None) -> None:
        """The dictionaries hold the values by key name; the service passes the same ones to everybody who shares."""
        self._values: dict[Scope, dict[str, Any]] = {
            Scope.COMPONENT: {} if by_component is None else by_component,
            Scope.SERVICE: {} if by_service is None else by_service,
        }

    def get(self, key: SharedKey[T]) -> T:
        """The value of ``key``; the first call creates it.

        Raises:
            ValueError: another key has the same name and scope, but makes its value differently.
        """
        values = self._values[key.scope]
        found = values.get(key.name)
        if found is None:
            found = values[key.name] = (key, key.create())
        declared, value = found
        if declared != key:
            raise ValueError(f"two shared keys are named {key.name!r} in the scope {key.scope}; rename one of them")
        shared: T = value
        return shared
