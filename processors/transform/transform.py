"""Changes batches by statements, which ``collector.ottl`` evaluates."""

from collections.abc import Callable
from contextlib import ExitStack

from collector.api import Admission, Host, PermanentError, Settings, Transform
from collector.delivery.log import RateLimitedLog
from collector.model import Batch
from collector.ottl.conditions import shown
from collector.ottl.draft import Draft
from collector.ottl.statements import StatementError
from processors.transform.config import TransformConfig

__all__ = ["TransformProcessor"]

_SENTENCE = "a statement could not be evaluated; the rows are left as they were before it"


class TransformProcessor(Transform):
    """The processor of one pipeline."""

    drop_reason = "transformed"

    def __init__(self, settings: Settings, config: TransformConfig) -> None:
        (self._signal,) = settings.signals
        self._groups = config.groups(self._signal)
        self._telemetry = settings.telemetry
        self._log = RateLimitedLog(settings.telemetry.log, settings.clock)
        self._failed = settings.telemetry.counter(
            "tailrace_transform_failed_statements",
            "Rows for which a statement could not be evaluated",
            ("transform", "statement"),
        )
        self._label = str(settings.id)
        self._admission: Admission | None = None

    async def start(self, host: Host) -> None:
        """From now on the memory budget bounds what statements add to a batch."""
        self._admission = host.admission

    def transform(self, batch: Batch) -> Batch | None:
        """The changed batch, or the same object if nothing changed."""
        with ExitStack() as held:
            admission = self._admission
            reserve = None
            if admission is not None:
                reserve = lambda size_bytes: held.enter_context(admission.reserve(size_bytes))  # noqa: E731
            changed = self._changed(Draft(batch, reserve))
        if changed is not batch:
            self._count(changed.item_count - batch.item_count)
        return changed if changed.item_count else None

    def _changed(self, draft: Draft) -> Batch:
        try:
            for group in self._groups:
                group.apply(draft, self._report)
        except StatementError as exc:
            raise PermanentError(str(exc)) from None
        return draft.finished()

    def _count(self, more: int) -> None:
        """Enter what editors of metrics added or merged into the ledger."""
        if more > 0:
            self._telemetry.created(self._signal, more)
        elif more < 0:
            self._telemetry.folded(self._signal, -more)

    def _report(self, statement: str, row_count: int, reason: Callable[[], str], *, silent: bool) -> None:
        """Count the rows of a statement that failed, and log it unless silent."""
        self._failed.add(row_count, transform=self._label, statement=shown(statement))
        if not silent and self._log.is_due(_SENTENCE, statement):
            self._telemetry.log.warning(_SENTENCE, statement=shown(statement), rows=row_count, reason=reason())
