"""The ``heartbeat`` receiver: a counter that keeps growing shows that a pipeline delivers, even when nobody sends."""

from dataclasses import dataclass

from pydantic import Field

from collector.api import (
    ComponentKind,
    ConsumeError,
    Factory,
    Host,
    PeriodicTask,
    Receiver,
    Settings,
    Stability,
)
from collector.model import TEMPORALITY_CUMULATIVE, Attributes, Metrics, MetricsBuilder, Signal
from config import ComponentConfig, Duration

__all__ = ["HeartbeatConfig", "HeartbeatReceiver", "factory"]


class HeartbeatConfig(ComponentConfig):
    """What the user writes under ``receivers: heartbeat:``."""

    interval: Duration = Field(default=30.0, gt=0)
    """Time between two heartbeats."""
    resource: dict[str, str] = Field(default_factory=lambda: {"service.name": "tailrace"})
    """Resource attributes of the metric."""


@dataclass(frozen=True, slots=True)
class _Count:
    """What a successor continues from after a reload."""

    value: int
    start_time_unix_nano: int


class HeartbeatReceiver(Receiver):
    """Emits ``heartbeat.count``, a cumulative sum, every ``interval``."""

    def __init__(self, settings: Settings, config: HeartbeatConfig) -> None:
        self._settings = settings
        self._output = settings.outputs[Signal.METRICS]
        self._resource = Attributes(config.resource)
        self._count = _Count(0, settings.clock.time_unix_nano())
        self._beating = PeriodicTask(self._beat, config.interval, settings.clock)

    async def start(self, host: Host) -> None:  # noqa: ARG002 - this receiver needs nothing from the service
        """Begin; the first heartbeat follows one interval later."""
        self._beating.start()

    async def shutdown(self) -> None:
        """Stop after the heartbeat in progress."""
        await self._beating.stop()

    def hand_over(self, config: HeartbeatConfig) -> _Count:  # noqa: ARG002 - any successor can continue the count
        """The count so far, so that a reload does not reset it."""
        return self._count

    def take_over(self, state: object) -> bool:
        """Continue the predecessor's count."""
        if not isinstance(state, _Count):
            return False
        self._count = state
        return True

    async def _beat(self) -> None:
        self._count = _Count(self._count.value + 1, self._count.start_time_unix_nano)
        try:
            await self._output.consume(self._metrics())
        except ConsumeError as error:  # the service has counted it, and the next heartbeat carries the total
            self._settings.telemetry.log.warning("a heartbeat was refused", reason=error.reason)

    def _metrics(self) -> Metrics:
        builder = MetricsBuilder()
        scope = builder.scope(builder.resource(self._resource), "tailrace_example_plugin")
        builder.sum(
            scope,
            "heartbeat.count",
            unit="{heartbeat}",
            description="Heartbeats since the receiver was first started.",
            temporality=TEMPORALITY_CUMULATIVE,
            monotonic=True,
            times=[self._settings.clock.time_unix_nano()],
            start_times=[self._count.start_time_unix_nano],
            values=[self._count.value],
        )
        return builder.build()


factory = Factory(
    component_type="heartbeat",
    kind=ComponentKind.RECEIVER,
    config_type=HeartbeatConfig,
    create=HeartbeatReceiver,
    signals=frozenset({Signal.METRICS}),
    stability=Stability.ALPHA,
)
