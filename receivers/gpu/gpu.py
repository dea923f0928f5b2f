"""The receiver: sends the newest readings of this machine's GPUs as metrics every ``collection_interval``."""

import asyncio
import socket

from collector.api import ConsumeError, Host, PeriodicTask, Receiver, Settings
from collector.gpu import SAMPLERS, GpuSampler, Snapshot
from collector.gpu.telemetry import SamplerMetrics
from collector.model import Signal
from receivers.gpu.config import GpuReceiverConfig
from receivers.gpu.metrics import MetricsMaker

__all__ = ["GpuReceiver"]


class GpuReceiver(Receiver):
    """Reads the snapshot of the shared sampler and never calls the driver itself."""

    def __init__(
        self,
        settings: Settings,
        config: GpuReceiverConfig,
        *,
        sampler: GpuSampler | None = None,
    ) -> None:
        """``sampler`` replaces the shared sampler of the process."""
        self._settings, self._config, self._sampler = settings, config, sampler
        self._predecessor: GpuSampler | None = None
        self._samplers = settings.shared.get(SAMPLERS)
        self._is_acquired = False
        # All metrics have one resource, so that the ratio of two of them matches without `on(…)`.
        host_name = (config.simulated.host_name if config.backend == "simulated" else "") or socket.gethostname()
        # Prometheus makes its label ``instance`` of the instance id; other resource attributes are not labels there.
        resource = {"service.instance.id": host_name, "host.name": host_name}
        self._maker = MetricsMaker(config, resource, settings.version)
        self._consuming: asyncio.Future[None] | None = None
        self._sending = PeriodicTask(self._send, config.collection_interval, settings.clock, log=settings.telemetry.log)
        self._metrics = SamplerMetrics(settings.telemetry, self._snapshot)

    @property
    def sampler(self) -> GpuSampler | None:
        """The sampler in use; None before the start."""
        return self._sampler

    def hand_over(self, config: GpuReceiverConfig) -> GpuSampler | None:  # noqa: ARG002
        """The sampler, whose history a successor continues."""
        return self._sampler

    def take_over(self, state: object) -> bool:
        """Continue the history of the predecessor's sampler, if the same devices are sampled."""
        self._predecessor = state if isinstance(state, GpuSampler) else None
        return self._predecessor is not None

    async def start(self, host: Host) -> None:  # noqa: ARG002 - Component's signature
        """Start the sampler, unless a processor has started it, and start sending."""
        if self._sampler is None:
            self._sampler = self._samplers.acquire(self._config, self._settings.telemetry.log, self._predecessor)
            self._is_acquired = True
        self._predecessor = None
        self._sending.start()

    async def shutdown(self) -> None:
        """Stop sending and release the sampler."""
        if self._consuming is not None:
            self._consuming.cancel()  # an exporter that hangs must not delay the shutdown
        await self._sending.stop()
        if self._is_acquired and self._sampler is not None:
            self._is_acquired = False
            self._samplers.release(self._sampler)

    def _snapshot(self) -> Snapshot | None:
        return None if self._sampler is None else self._sampler.snapshot

    async def _send(self) -> None:
        settings, snapshot = self._settings, self._snapshot()
        self._metrics.update()
        batch = None if snapshot is None else self._maker.make(snapshot, settings.clock.time_unix_nano())
        if batch is None:
            return
        self._consuming = asyncio.ensure_future(settings.outputs[Signal.METRICS].consume(batch))
        try:
            await self._consuming
        except ConsumeError as exc:  # already counted; the next collection has newer values
            settings.telemetry.log.debug("the pipeline refused the metrics", reason=exc.reason)
