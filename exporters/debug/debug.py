"""Shows telemetry to a person. Not for production traffic: ``normal`` and ``detailed`` decode every item in Python.

Everything that arrives counts as delivered, whether it is shown or not.

Source: the Collector's exporter/debugexporter; sampling as in its logger (zapcore.NewSamplerWithOptions, one second).
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from collector.api import Exporter, Host, Settings
from collector.model import Batch, Signal
from collector.text.own_log import Lines
from exporters.debug.config import DebugConfig
from exporters.debug.text import detailed_text, item_counts, normal_text

__all__ = ["DebugExporter"]

_TITLES = {Signal.TRACES: "Traces", Signal.METRICS: "Metrics", Signal.LOGS: "Logs"}
# Looked up at each use, since sys.stdout may be replaced.
_STREAMS: dict[str, Callable[[], TextIO]] = {"stdout": lambda: sys.stdout, "stderr": lambda: sys.stderr}


class DebugExporter(Exporter):
    """Shows each batch within the call that hands it on."""

    def __init__(self, settings: Settings, config: DebugConfig) -> None:
        self._settings = settings
        self._config = config
        self._telemetry = settings.telemetry
        self._files: list[TextIO] = []
        self._current_second = -1
        self._seen_count = dict.fromkeys(Signal, 0)

    async def start(self, host: Host) -> None:  # noqa: ARG002 - needs nothing of it
        """See :class:`collector.api.Component`."""
        if self._config.use_internal_logger:
            return
        for path in self._config.output_paths:
            if path in _STREAMS:
                continue
            try:
                file = Path(path).open("a", encoding="utf-8")  # noqa: ASYNC230, SIM115 - once; shutdown closes it
            except OSError as exc:
                raise ValueError(
                    f"exporters::{self._settings.id}::output_paths: cannot write {path}: {exc.strerror}"
                ) from exc
            self._files.append(file)

    async def shutdown(self) -> None:
        """See :class:`collector.api.Component`."""
        files, self._files = self._files, []
        for file in files:
            file.close()

    async def consume(self, batch: Batch) -> None:
        """See :class:`collector.api.Exporter`."""
        self.try_consume(batch)

    def try_consume(self, batch: Batch) -> bool:
        """See :class:`collector.api.Exporter`."""
        if batch.item_count and self._is_shown(batch.signal):
            self._show(batch)
        return True

    def _is_shown(self, signal: Signal) -> bool:
        second = int(self._settings.clock.monotonic_s())
        if second != self._current_second:
            self._current_second = second
            self._seen_count = dict.fromkeys(Signal, 0)
        self._seen_count[signal] += 1
        number_after_initial = self._seen_count[signal] - self._config.sampling_initial
        interval = self._config.sampling_thereafter
        return number_after_initial <= 0 or (interval > 0 and number_after_initial % interval == 0)

    def _show(self, batch: Batch) -> None:
        title, counts = _TITLES[batch.signal], item_counts(batch)
        match self._config.verbosity:
            case "basic":
                text = ""
            case "normal":
                text = normal_text(batch)
            case "detailed":
                text = detailed_text(batch)
        if self._config.use_internal_logger:
            self._telemetry.log.info(title, **{name.replace(" ", "_"): count for name, count in counts.items()})
            if text:
                self._telemetry.log.info(Lines(text.rstrip("\n")))
            return
        line = f"{title} {', '.join(f'{name}: {count}' for name, count in counts.items())}\n{text}"
        for stream in (*(_STREAMS[path]() for path in self._config.output_paths if path in _STREAMS), *self._files):
            stream.write(line if line.endswith("\n") else line + "\n")
            stream.flush()
