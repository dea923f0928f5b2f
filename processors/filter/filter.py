"""Drops what ``include`` does not match and what ``exclude`` does. Which rows those are: ``collector.helpers.match``."""

from collector.api import Settings, Transform
from collector.helpers.match import MatchConfig, Matcher
from collector.model import Batch, Signal
from processors.filter.config import FilterConfig

__all__ = ["FilterProcessor"]


class FilterProcessor(Transform):
    """One for each pipeline."""

    drop_reason = "filtered"

    def __init__(self, settings: Settings, config: FilterConfig) -> None:
        (signal,) = settings.signals
        include, exclude = _of(config, signal)
        self._matcher = Matcher(include, exclude, signal)

    def transform(self, batch: Batch) -> Batch | None:
        """The batch without what is dropped; the same object where nothing is."""
        rows = self._matcher.rows(batch)
        if rows is None or rows.all():
            return batch
        return batch.select(rows) if rows.any() else None


def _of(config: FilterConfig, signal: Signal) -> tuple[MatchConfig | None, MatchConfig | None]:
    """Include and exclude for one signal."""
    if signal is Signal.TRACES:
        return config.spans.include, config.spans.exclude
    section = config.metrics if signal is Signal.METRICS else config.logs
    include, exclude = section.include, section.exclude
    return include.match() if include is not None else None, exclude.match() if exclude is not None else None
