"""The instruments behind :class:`collector.api.Counter`, ``Gauge`` and ``Histogram``: plain values, read by scrapes."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from prometheus_client.utils import floatToGoString

__all__ = ["Counter", "Family", "Gauge", "Histogram", "Labels", "Read", "number"]

_LABEL_SETS_MAX: Final = 2000  # of one instrument; the default limit of OpenTelemetry's SDKs
_LABEL_MAX_CHARS: Final = 255
_OTHER: Final = "__other__"
Labels: TypeAlias = tuple[tuple[str, str], ...]
Read: TypeAlias = Callable[[], float | Mapping[tuple[str, ...], float]]


class Counter:
    """A value that only increases, by labels."""

    __slots__ = ("_names", "_values")

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._values: dict[tuple[str, ...], float] = {} if names else {(): 0}

    def add(self, value: float = 1, **labels: str) -> None:
        """See :class:`collector.api.Counter`."""
        if value < 0:
            raise ValueError("a counter cannot be decreased")
        key = _key(self._names, labels, self._values)
        self._values[key] = self._values.get(key, 0) + value

    def samples(self, name: str, labels: Labels) -> Iterator[tuple[str, dict[str, str], float]]:
        """Name, labels and value of each series; ``labels`` are the owner's."""
        for key, value in self._values.items():
            yield name, {**dict(labels), **dict(zip(self._names, key, strict=True))}, value


class Gauge:
    """A value that is set, or read when it is scraped, by labels."""

    __slots__ = ("_names", "_values", "read")

    def __init__(self, names: tuple[str, ...], read: Read | None) -> None:
        self._names = names
        self._values: dict[tuple[str, ...], float] = {}
        self.read = read

    def set(self, value: float, **labels: str) -> None:
        """See :class:`collector.api.Gauge`."""
        self._values[_key(self._names, labels, self._values)] = value

    def samples(self, name: str, labels: Labels) -> Iterator[tuple[str, dict[str, str], float]]:
        """Name, labels and value of each series; ``labels`` are the owner's."""
        values: Mapping[tuple[str, ...], float] = self._values
        if self.read is not None:
            now = self.read()
            values = now if isinstance(now, Mapping) else {(): now}
        for key, value in values.items():
            yield name, {**dict(labels), **dict(zip(self._names, key, strict=True))}, value


class Histogram:
    """A distribution, by labels."""

    __slots__ = ("_bounds", "_names", "_values")

    def __init__(self, names: tuple[str, ...], buckets: tuple[float, ...]) -> None:
        self._names = names
        self._bounds = tuple(sorted(bound for bound in buckets if bound != float("inf")))
        self._values: dict[tuple[str, ...], list[float]] = {}  # count of each bucket, count above the last bound, sum

    def observe(self, value: float, count: int = 1, **labels: str) -> None:
        """See :class:`collector.api.Histogram`."""
        key = _key(self._names, labels, self._values)
        counts = self._values.get(key)
        if counts is None:
            counts = self._values[key] = [0.0] * (len(self._bounds) + 2)
        place = next((place for place, bound in enumerate(self._bounds) if value <= bound), len(self._bounds))
        counts[place] += count
        counts[-1] += value * count

    def samples(self, name: str, labels: Labels) -> Iterator[tuple[str, dict[str, str], float]]:
        """Name, labels and value of each series; ``labels`` are the owner's."""
        for key, counts in self._values.items():
            own = {**dict(labels), **dict(zip(self._names, key, strict=True))}
            below = 0.0
            for bound, count in zip((*self._bounds, float("inf")), counts, strict=False):
                below += count
                yield f"{name}_bucket", {**own, "le": number(bound)}, below
            yield f"{name}_sum", own, counts[-1]
            yield f"{name}_count", own, below


def _key(names: tuple[str, ...], labels: Mapping[str, str], known: Mapping[tuple[str, ...], object]) -> tuple[str, ...]:
    """The values of the labels; those of a new set beyond the limit are all ``__other__``."""
    if not names and not labels:
        return ()
    try:
        key = tuple(str(labels[name])[:_LABEL_MAX_CHARS] for name in names)
    except KeyError as error:
        raise ValueError(f"the label {error} is missing: expected {names}, got {tuple(labels)}") from None
    if len(labels) != len(names):
        raise ValueError(f"expected the labels {names}, got {tuple(labels)}")
    return key if key in known or len(known) < _LABEL_SETS_MAX else (_OTHER,) * len(names)


@dataclass
class Family:
    """One metric name, with the instruments of all components."""

    name: str
    kind: str
    description: str
    label_names: tuple[str, ...]
    buckets: tuple[float, ...] = ()
    instruments: dict[Labels, Any] = field(default_factory=dict)


def number(value: float) -> str:
    """The value in Prometheus' text format."""
    text: str = floatToGoString(value)  # type: ignore[no-untyped-call]
    return text
