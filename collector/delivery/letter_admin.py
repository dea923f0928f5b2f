"""LetterAdmin: the dead letters of one exporter on the admin port of a running service.

``GET /dead-letters`` lists them, ``POST /dead-letters/replay`` sends them again. The commands ``tailrace dead-letters``
and ``tailrace replay`` use both.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final

from collector.api import Host, PermanentError, Settings, StoredBatch
from collector.delivery.dead_letters import DeadLetters, LetterFilter
from collector.model import Batch, Signal

__all__ = ["LETTERS_PATH", "REPLAY_PATH", "LetterAdmin"]

LETTERS_PATH: Final = "/dead-letters"
REPLAY_PATH: Final = "/dead-letters/replay"
_LISTED_MAX: Final = 10_000


class LetterAdmin:
    """``send`` makes the attempts for one batch, keeps nothing itself, and returns the error of the last one."""

    def __init__(
        self,
        settings: Settings,
        letters: Mapping[Signal, DeadLetters],
        send: Callable[[Batch], Awaitable[Exception | None]],
    ) -> None:
        self._id = str(settings.id)
        self._telemetry = settings.telemetry
        self._letters = letters
        self._send = send
        self._is_replaying = False

    def start(self, host: Host) -> None:
        """Serve both paths."""
        host.add_admin_route(LETTERS_PATH, self.show)
        host.add_admin_action(REPLAY_PATH, self.replay)

    async def show(self, query: Mapping[str, str]) -> dict[str, Any]:
        """What is stored, oldest first; of each signal at most 10,000 batches. ``query`` is that of a LetterFilter."""
        wanted = LetterFilter.from_query(query)
        found: list[dict[str, Any]] = []
        for letters in self._letters.values():
            found += [_described(stored) async for stored in letters.stored(wanted, _LISTED_MAX)]
        return {self._id: found}

    async def replay(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Send what is stored again, oldest first, and remove what is delivered.

        ``query`` is that of a :class:`LetterFilter`, with ``limit`` and ``keep=true``. What is refused stays. The
        replay ends when the backend cannot be reached.
        """
        outcome: dict[str, Any] = {"delivered": 0, "items": 0, "refused": 0, "unreadable": 0, "error": ""}
        wanted = LetterFilter.from_query(query)
        if not wanted.may_include(self._id):
            return {self._id: outcome}
        if self._is_replaying:
            return {self._id: {**outcome, "error": "a replay is in progress already"}}
        self._is_replaying = True
        try:
            await self._replay(wanted, int(query.get("limit") or 0), outcome, keep=query.get("keep") == "true")
        finally:
            self._is_replaying = False
        return {self._id: outcome}

    async def _replay(self, wanted: LetterFilter, limit: int, outcome: dict[str, Any], *, keep: bool) -> None:
        attempted = 0
        for signal, letters in self._letters.items():
            async with aclosing(letters.stored(wanted)) as found:
                async for stored in found:
                    if limit and attempted == limit:
                        return
                    attempted += 1
                    try:
                        batch = await letters.read(stored.key)
                    except (OSError, KeyError):
                        outcome["unreadable"] += 1
                        continue
                    self._telemetry.created(signal, batch.item_count)
                    error = await self._send(batch)
                    if isinstance(error, PermanentError):
                        outcome["refused"] += 1
                        continue
                    if error is not None:
                        outcome["error"] = str(error)
                        return
                    outcome["delivered"] += 1
                    outcome["items"] += batch.item_count
                    if not keep:
                        letters.remove(stored.key)


def _described(stored: StoredBatch) -> dict[str, Any]:
    return {
        "key": stored.key,
        "stored_unix_nano": stored.stored_unix_nano,
        "items": stored.item_count,
        "bytes": stored.size_bytes,
        **stored.labels,
    }
