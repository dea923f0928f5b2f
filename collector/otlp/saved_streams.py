"""SavedStreams: the streams of a processor over a restart.

A conversion passes every point on at once, so a checkpoint is out of date with the next batch. To continue from such a
one would let totals fall, or count an interval twice. The streams are therefore saved when the processor ends, and the
checkpoint is removed when it starts: after a crash the streams begin anew, as they do without a storage.
"""

from typing import Literal

from collector.api import Host, SavedState, Settings
from collector.model.checkpoint import Part, Parts
from collector.otlp.streams import Streams

__all__ = ["SavedStreams"]

_VERSION = 1  # of the parts of a checkpoint


class SavedStreams:
    """Saves the streams of one processor in the extension ``storage``; does nothing if that is empty."""

    def __init__(
        self, settings: Settings, storage: str, kind: Literal["cumulative_to_delta", "delta_to_cumulative"]
    ) -> None:
        self._storage = storage
        self._saved = SavedState(settings, "processors", kind=kind, version=_VERSION)
        self._telemetry = settings.telemetry

    async def restore(self, host: Host, streams: Streams, *, is_taken_over: bool) -> Parts:
        """Let ``streams`` continue what was saved, and return the other parts; empty if there is nothing.

        ``is_taken_over``: they are those of a predecessor already.

        Raises:
            ValueError: There is no such extension.
        """
        if not self._storage:
            return {}
        parts = await self._saved.open(host, self._storage, fingerprint="", restores=not is_taken_over)
        if parts is not None:
            try:
                streams.restore(parts, self._saved.elapsed(parts))
            except (KeyError, TypeError, ValueError) as error:
                self._saved.refuse(error)
                parts = None
            else:
                self._telemetry.log.info("continuing the streams of the last run", streams=len(streams))
        self._saved.discard()
        return parts or {}

    def save(self, streams: Streams, **others: Part) -> None:
        """Save the streams, and ``others``. Only for ``shutdown``."""
        self._saved.save_now({**others, **streams.parts()})
