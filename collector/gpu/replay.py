"""Recordings of a backend: writing them, and playing one as if it happened now.

The format is UTF-8 text with one JSON document per line:

- The first line is ``{"tailrace_gpu_recording": 1, "devices": [{"id": "GPU-…", "index": "0", "model": …,
  "memory_limit_bytes": …, "parent_id": …, "is_partitioned": …, "serial": …, "driver_version": …}, …]}``.
- Each further line is a sample, ``{"time_unix_nano": …, "readings": [{…}, …]}``, with the readings in the order of
  ``devices``. A reading holds the known fields of :class:`~collector.gpu.backend.Reading`. Of the processes only their
  number is recorded. Times increase from line to line.

``python -m collector.gpu FILE`` writes such a file.
"""

import dataclasses
import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Final

import orjson

from collector.gpu.backend import THROTTLE_REASONS, Backend, BackendUnavailableError, Device, Reading
from collector.gpu.config import ReplayConfig

__all__ = ["Recorder", "ReplayBackend", "record"]

_VERSION: Final = 1
_MAX_FILE_BYTES: Final = 512 * 1024 * 1024
_COUNTERS: Final = ("energy_j", "pcie_transmit_bytes", "pcie_receive_bytes", "errors_corrected", "errors_uncorrected")
_NUMBERS: Final = (
    "utilization",
    "memory_used_bytes",
    "power_w",
    "temperature_c",
    "encoder_utilization",
    "decoder_utilization",
    *_COUNTERS,
)
_DEVICE_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "id": (str,), "index": (str,), "model": (str,), "memory_limit_bytes": (int, float, type(None)), "parent_id": (str,),
    "is_partitioned": (bool,), "serial": (str,), "driver_version": (str,),
}  # fmt: skip


class Recorder:
    """Writes a recording line by line."""

    def __init__(self, file: IO[bytes], devices: Sequence[Device]) -> None:
        self._file = file
        # orjson writes NaN as null, which is read back as absent.
        file.write(orjson.dumps({"tailrace_gpu_recording": _VERSION, "devices": list(devices)}) + b"\n")

    def write(self, time_unix_nano: int, readings: Sequence[Reading]) -> None:
        """Add a sample."""
        lines = [
            {key: value for key, value in dataclasses.asdict(reading).items() if _is_known(key, value)}
            for reading in readings
        ]
        self._file.write(orjson.dumps({"time_unix_nano": time_unix_nano, "readings": lines}) + b"\n")


def record(
    backend: Backend,
    path: Path,
    *,
    sample_count: int,
    interval_s: float,
    time_unix_nano: Callable[[], int],
    sleep: Callable[[float], Any],
) -> None:
    """Record ``sample_count`` samples of a backend; ``time.time_ns`` and ``time.sleep`` fit the last two parameters."""
    devices = backend.open(time_unix_nano())
    try:
        with path.open("wb") as file:
            recorder = Recorder(file, devices)
            for number in range(sample_count):
                if number:
                    sleep(interval_s)
                now = time_unix_nano()
                recorder.write(now, backend.read(now))
    finally:
        backend.close()


class ReplayBackend:
    """Plays a recording, starting when it is opened. With ``loop`` it then starts over, and counters keep rising."""

    source = "replay"

    def __init__(self, config: ReplayConfig) -> None:
        self._config = config
        self._times: list[int] = []
        self._samples: list[list[Reading]] = []
        self._opened_unix_nano = 0

    def open(self, now_unix_nano: int) -> Sequence[Device]:
        """The recorded devices."""
        devices, self._times, self._samples = _load(Path(self._config.file))
        self._opened_unix_nano = now_unix_nano
        return devices

    def read(self, now_unix_nano: int) -> Sequence[Reading]:
        """The recorded readings of the sample that is current now."""
        elapsed = max(0, now_unix_nano - self._opened_unix_nano)
        length = self._times[-1] - self._times[0]
        turn, within = divmod(elapsed, length) if length else (0, 0)
        if turn and not self._config.loop:
            raise BackendUnavailableError(
                "replay_ended", f"the recording {self._config.file!r} has ended (replay::loop is false)"
            )
        readings = self._samples[bisect_right(self._times, self._times[0] + within) - 1]
        if not turn:
            return readings
        return [
            _advanced(reading, first, last, turn)
            for reading, first, last in zip(readings, self._samples[0], self._samples[-1], strict=True)
        ]

    def close(self) -> None:
        """Does nothing; there is no driver."""


def _advanced(reading: Reading, first: Reading, last: Reading, turn: int) -> Reading:
    """The reading in a later turn of the loop, with counters that continue where the previous turn ended."""
    grown: dict[str, Any] = {
        name: getattr(reading, name) + turn * max(0.0, getattr(last, name) - getattr(first, name)) for name in _COUNTERS
    }
    ends = zip(first.throttle_s, last.throttle_s, strict=True)
    grown["throttle_s"] = tuple(
        value + turn * max(0.0, end - begin) for value, (begin, end) in zip(reading.throttle_s, ends, strict=True)
    )
    return dataclasses.replace(reading, **grown)


def _load(path: Path) -> tuple[list[Device], list[int], list[list[Reading]]]:
    """The devices, times and readings of a recording."""
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise BackendUnavailableError(
                "replay_file", f"the recording {str(path)!r} is too large: the limit is {_MAX_FILE_BYTES} bytes"
            )
        lines = path.read_bytes().splitlines()
    except OSError as exc:
        raise BackendUnavailableError(
            "replay_file", f"cannot read the recording {str(path)!r}: {exc.strerror}"
        ) from exc
    number = 0
    try:
        devices = _devices(orjson.loads(lines[0]) if lines else None)
        times: list[int] = []
        samples: list[list[Reading]] = []
        for line in lines[1:]:
            number += 1
            sample = orjson.loads(line)
            times.append(_time(sample["time_unix_nano"], times))
            samples.append(_readings(sample["readings"], len(devices)))
        if not samples:
            raise ValueError("the file has no samples")  # noqa: TRY301 - the message is built in one place below
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as exc:
        raise BackendUnavailableError(
            "replay_file", f"{path}:{number + 1}: not a valid recording of GPU samples: {exc}"
        ) from exc
    return devices, times, samples


def _devices(header: Any) -> list[Device]:
    if not isinstance(header, dict) or header.get("tailrace_gpu_recording") != _VERSION:
        raise ValueError(f'the first line must contain "tailrace_gpu_recording": {_VERSION}')
    devices = []
    for entry in header["devices"]:
        if not isinstance(entry, dict):
            raise TypeError("a device must be an object")
        for key, value in entry.items():
            if key not in _DEVICE_TYPES or not isinstance(value, _DEVICE_TYPES[key]):
                raise ValueError(f"device field {key!r} is unknown or of the wrong type")
        devices.append(Device(**{**entry, "memory_limit_bytes": _number(entry.get("memory_limit_bytes"))}))
    if not devices:
        raise ValueError("the file has no devices")
    return devices


def _time(value: Any, times: list[int]) -> int:
    before = times[-1] if times else -1
    if not isinstance(value, int) or value <= before:
        raise ValueError("time_unix_nano must be an integer that increases from line to line")
    return value


def _readings(entries: Any, device_count: int) -> list[Reading]:
    if not isinstance(entries, list) or len(entries) != device_count:
        raise ValueError(f"there must be {device_count} readings, one per device")
    return [_reading(entry) for entry in entries]


def _reading(entry: Any) -> Reading:
    numbers: dict[str, Any] = {name: _number(entry.get(name)) for name in _NUMBERS}
    count = entry.get("process_count")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 0):
        raise ValueError("process_count must be a whole number")
    throttle = _throttle(entry.get("throttle_s"))
    return Reading(**numbers, throttle_s=throttle, is_lost=entry.get("is_lost") is True, process_count=count)


def _throttle(values: Any) -> tuple[float, ...]:
    if values is None:
        return (math.nan,) * len(THROTTLE_REASONS)
    if not isinstance(values, list) or len(values) != len(THROTTLE_REASONS):
        raise ValueError(f"throttle_s must be a list of {len(THROTTLE_REASONS)} numbers")
    return tuple(_number(value) for value in values)


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def _is_known(key: str, value: Any) -> bool:
    return (
        key != "processes"
        and value is not None
        and value is not False
        and not (isinstance(value, float) and math.isnan(value))
    )
