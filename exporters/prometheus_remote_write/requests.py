"""A request of the exporter: its bytes, where they may be cut, and what its delivery says about series."""

from dataclasses import dataclass, replace

import numpy as np

from collector.delivery import Part
from collector.model.arrays import I32, I64, U8
from collector.prometheus import METADATA_TYPES
from exporters.prometheus_remote_write._v2 import to_v2
from exporters.prometheus_remote_write.messages import cut_by_time

__all__ = ["Details", "WriteRequest", "extra_part", "halves", "halves_by_time", "part_of"]

_NO_SERIES = np.zeros(0, np.int32)
_HELP, _UNIT = b"Target metadata", b""


@dataclass(frozen=True, slots=True)
class Details:
    """What only version 2.0 of the protocol carries: when counters and histograms began, and the metadata of series."""

    times: I64
    """(points, 2): the time of each point and its start (0: unknown), in milliseconds."""
    family: I32
    """(k,) the row of ``metadata`` of each series."""
    metadata: I64
    """(families, 5): type, start and size of the help in ``texts``, and of the unit."""
    texts: U8


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """The body of a request, and where it may be cut."""

    body: bytes
    """As version 1.0 of the protocol."""
    cuts: I64
    """(k, 2): where the samples of each series end (the series of a histogram count as one), the points up to there."""
    series: I32
    """(k,) their slots in the cache; empty for a request without points."""
    newest: I64
    """(k, 2): time in milliseconds and fingerprint of their last samples; 0 if the fingerprint is unknown."""
    slots_version: int
    """That of the cache when it had these slots."""
    details: Details | None = None
    """Absent if version 2.0 is not used."""

    def as_v2(self) -> bytes:
        """The body as version 2.0 of the protocol; empty if that is nothing but metadata."""
        details = self.details
        assert details is not None
        return to_v2(self.body, self.cuts, details.times, details.family, details.metadata, details.texts)

    def runs(self, first: int, last: int) -> "WriteRequest":
        """The series from ``first`` to before ``last``."""
        begin = self.cuts[first - 1] if first else np.zeros(2, np.int64)
        end = self.cuts[last - 1]
        details = self.details
        if details is not None:
            details = replace(
                details,
                times=np.ascontiguousarray(details.times[begin[1] : end[1]]),
                family=np.ascontiguousarray(details.family[first:last]),
            )
        return WriteRequest(
            self.body[begin[0] : end[0]],
            np.ascontiguousarray(self.cuts[first:last] - begin),
            self.series[first:last],
            self.newest[first:last],
            self.slots_version,
            details,
        )


def part_of(request: WriteRequest, shard: int) -> Part[WriteRequest]:
    """The request as a part of a batch."""
    return Part(request, int(request.cuts[-1, 1]), shard, len(request.body))


def extra_part(contents: list[bytes]) -> Part[WriteRequest]:
    """A request without points, which may be cut after each of the contents; its series are ``target_info``."""
    ends = np.cumsum([len(content) for content in contents], dtype=np.int64)
    cuts = np.stack((ends, np.zeros_like(ends)), axis=1)
    details = Details(
        np.zeros((0, 2), np.int64),
        np.zeros(len(contents), np.int32),
        np.array([[METADATA_TYPES["gauge"], 0, len(_HELP), len(_HELP), len(_UNIT)]]),
        np.frombuffer(_HELP + _UNIT, np.uint8),
    )
    return part_of(WriteRequest(b"".join(contents), cuts, _NO_SERIES, np.zeros((0, 2), np.int64), 0, details), 0)


def halves(part: Part[WriteRequest]) -> list[Part[WriteRequest]]:
    """The part in two of about the same size, each with whole series; the part alone if it has only one."""
    request = part.payload
    cuts = request.cuts
    if len(cuts) < 2:
        return [part]
    count = min(max(int(np.searchsorted(cuts[:, 0], len(request.body) // 2, side="right")), 1), len(cuts) - 1)
    return [part_of(request.runs(0, count), part.shard), part_of(request.runs(count, len(cuts)), part.shard)]


def halves_by_time(part: Part[WriteRequest]) -> list[Part[WriteRequest]]:
    """Like :func:`halves`, but the samples of a single series are cut by time."""
    request = part.payload
    if len(request.cuts) != 1 or part.item_count < 2 or (found := cut_by_time(request.body)) is None:
        return halves(part)
    first, second, count, time_ms = found
    if not count < part.item_count:
        return [part]
    earlier, details = np.array([[time_ms, 0]]), request.details
    own: list[Details | None] = [None, None]
    if details is not None:
        own = [replace(details, times=times.copy()) for times in (details.times[:count], details.times[count:])]
    cut = (first, count, earlier), (second, part.item_count - count, request.newest)
    return [
        part_of(
            replace(request, body=body, cuts=np.array([[len(body), points]]), newest=newest, details=own[half]),
            part.shard,
        )
        for half, (body, points, newest) in enumerate(cut)
    ]
