"""SavedState: the checkpoint of one component in a storage extension, with everything that can go wrong.

What is saved is a checkpoint (``collector.model.checkpoint``). A component works on if its state cannot be read or
saved: it begins afresh, or is behind after the next restart. Log, metric and health check say so.
"""

from typing import Any, Final, Literal

from collector.api.factory import Settings
from collector.api.host import HealthCheck, Host
from collector.api.storage import StateStore, StorageExtension, find_storage
from collector.model.checkpoint import CheckpointError, Parts, decode_checkpoint, encode_checkpoint
from collector.wire.hash import continue_process_key, process_key

__all__ = ["SavedState"]

_FINGERPRINT: Final = "fingerprint"
_HASH_KEY: Final = "hash_key"
_MONOTONIC: Final = "monotonic_s"


class SavedState:
    """The state of one component.

    Example::

        self._saved = SavedState(settings, "connectors", kind="span_metrics", version=1)
        ...
        parts = await self._saved.open(host, config.storage, fingerprint=config.fingerprint)  # in `start`
        if parts is not None:
            self._restore(parts)
        ...
        await self._saved.save(self._parts())
    """

    def __init__(
        self,
        settings: Settings,
        section: Literal["processors", "connectors"],
        *,
        kind: str,
        version: int,
        has_keys: bool = True,
        may_be_behind: bool = False,
    ) -> None:
        """Without effect until :meth:`open`.

        Args:
            settings: Of the component.
            section: Where the component is configured.
            kind: Of the checkpoints.
            version: Of their parts.
            has_keys: Whether they contain keys that are made with the secret of the process (``combine_keys``).
            may_be_behind: Whether a process may continue from a state that is older than what was passed on. If not,
                as with totals, which would fall, a state is removed when a newer one cannot be saved.
        """
        self._has_keys, self._may_be_behind = has_keys, may_be_behind
        self._settings, self._section, self._kind, self._version = settings, section, kind, version
        self._store: StateStore | None = None
        self._fingerprint = ""
        self._errors: dict[str, str] = {}
        """By operation, as long as it fails."""
        self._size = 0

    @property
    def name(self) -> str:
        """What the component's state and queues are called in the storage."""
        pipeline = f"@{self._settings.pipeline}" if self._settings.pipeline else ""
        return f"{self._settings.id}{pipeline}"

    @property
    def is_open(self) -> bool:
        """Whether there is a storage."""
        return self._store is not None

    def extension(self, host: Host, storage: str) -> StorageExtension:
        """The storage extension that the component's key ``storage`` names.

        Raises:
            ValueError: There is no such extension.
        """
        return find_storage(host, storage, key=f"{self._section}::{self._settings.id}::storage")

    async def open(self, host: Host, storage: str, *, fingerprint: str, restores: bool = True) -> Parts | None:
        """Use the storage, and return what was saved last; None if there is nothing that can be used.

        Args:
            host: The service.
            storage: The id of the extension.
            fingerprint: What the configuration determines about the state. A state with another one is not used.
            restores: False: a predecessor has handed over its state, which is newer than the saved one.

        Raises:
            ValueError: There is no such extension.
        """
        self._store, self._fingerprint = self.extension(host, storage).state(self.name), fingerprint
        host.add_health_check(f"state of {self.name}", self._check)
        telemetry = self._settings.telemetry
        telemetry.gauge("tailrace_state_bytes", "Size of the saved state", read=lambda: float(self._size))
        if not restores:
            return None
        log = self._settings.telemetry.log
        try:
            value = await self._store.load()
        except OSError as error:
            self.refuse(error)
            return None
        if value is None:
            return None
        self._size = len(value)
        try:
            parts = decode_checkpoint(value, self._kind, self._version)
            if parts.get(_FINGERPRINT) != fingerprint:
                log.warning("the configuration has changed what is counted; the component begins without saved state")
                return None
            has_key = not self._has_keys or continue_process_key(parts[_HASH_KEY])
        except (KeyError, TypeError, ValueError) as error:
            self.refuse(error)
            return None
        if not has_key:
            self.refuse(CheckpointError("its keys were made with another secret than those of another saved state"))
            return None
        return parts

    def refuse(self, error: Exception) -> None:
        """Report that the saved state cannot be used."""
        self._count("load")
        self._settings.telemetry.log.warning(
            "the saved state cannot be used; the component begins without it", error=str(error)
        )

    def elapsed(self, parts: Parts) -> float:
        """What has to be added to monotonic times of these parts, so that they are as long ago as when it was saved.

        The time between two runs does not count: nobody could send anything then.
        """
        return self._settings.clock.monotonic_s() - float(parts[_MONOTONIC])

    async def save(self, parts: Parts) -> bool:
        """Save the state; returns when it will survive a power failure.

        Returns False if there is no storage, or if it has failed, which was reported.
        """
        if self._store is None:
            return False
        try:
            await self._store.save(self._encode(parts))
        except OSError as error:
            self._not_saved(error)
            return False
        self.succeeded("save")
        return True

    def save_now(self, parts: Parts) -> bool:
        """Like :meth:`save`, but blocking: for ``shutdown``."""
        if self._store is None:
            return False
        try:
            self._store.save_now(self._encode(parts))
        except OSError as error:
            self._not_saved(error)
            return False
        self.succeeded("save")
        return True

    def discard(self) -> None:
        """Remove the saved state, because it will be behind what is passed on from now on."""
        if self._store is None:
            return
        try:
            self._store.discard()
        except OSError as error:
            self.failed("discard", error)
        else:
            self.succeeded("discard")

    def _not_saved(self, error: OSError) -> None:
        self.failed("save", error)
        if not self._may_be_behind:
            self.discard()

    def _encode(self, parts: Parts) -> bytes:
        clock = self._settings.clock
        common: dict[str, Any] = {
            _FINGERPRINT: self._fingerprint,
            _MONOTONIC: clock.monotonic_s(),
        }
        if self._has_keys:
            common[_HASH_KEY] = process_key()
        value = encode_checkpoint(self._kind, self._version, common | dict(parts))
        self._size = len(value)
        return value

    def failed(self, operation: str, error: OSError) -> None:
        """Count and report a failure of an operation: ``save`` a state, ``discard`` an old one, ``store`` a batch."""
        self._count(operation)
        if operation not in self._errors:
            self._settings.telemetry.log.warning(
                "what the component holds cannot be kept; it is lost if the process ends",
                operation=operation,
                error=str(error),
            )
        self._errors[operation] = str(error)

    def succeeded(self, operation: str) -> None:
        """Report the end of failures."""
        if self._errors.pop(operation, None) is not None:
            self._settings.telemetry.log.info("what the component holds is kept again", operation=operation)

    def _count(self, operation: str) -> None:
        self._settings.telemetry.counter(
            "tailrace_state_failures", "States and held batches that could not be kept or restored", ("operation",)
        ).add(operation=operation)

    def _check(self) -> HealthCheck:
        errors = "; ".join(f"{operation}: {error}" for operation, error in self._errors.items())
        message = f"what it holds is lost if the process ends ({errors})" if errors else ""
        return HealthCheck(f"state of {self.name}", healthy=not errors, message=message)
