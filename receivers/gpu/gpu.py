"""The receiver: sends the newest readings of this machine's GPUs as metrics every ``collection_interval``."""

import asyncio
import contextlib
import socket

from collector.api import ConsumeError, Host, Receiver, Settings
from collector.gpu import SAMPLERS, Sampler, Snapshot
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
        sampler: Sampler | None = None,
    ) -> None:
        """``sampler`` replaces the shared sampler of the process."""
        self._settings, self._config, self._sampler = settings, config, sampler
        self._predecessor: Sampler | None = None
        self._samplers = settings.shared.get(SAMPLERS)
        self._is_acquired = False
        self._task: asyncio.Task[None] | None = None
        self._metrics = SamplerMetrics(settings.telemetry, self._snapshot)

    @property
    def sampler(self) -> Sampler | None:
        """The sampler in use; None before the start."""
        return self._sampler

    def hand_over(self, config: GpuReceiverConfig) -> Sampler | None:  # noqa: ARG002
        """The sampler, whose history a successor continues."""
        return self._sampler

    def take_over(self, state: object) -> bool:
        """Continue the history of the predecessor's sampler, if the same devices are sampled."""
        self._predecessor = state if isinstance(state, Sampler) else None
        return self._predecessor is not None

    async def start(self, host: Host) -> None:  # noqa: ARG002 - Component's signature
        """Start the sampler, unless a processor has started it, and start sending."""
        if self._sampler is None:
            self._sampler = self._samplers.acquire(self._config, self._settings.telemetry.log, self._predecessor)
            self._is_acquired = True
        self._predecessor = None
        self._task = asyncio.create_task(self._run(self._sampler), name=f"{self._settings.id} receiver")

    async def shutdown(self) -> None:
        """Stop sending and release the sampler."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._is_acquired and self._sampler is not None:
            self._is_acquired = False
            self._samplers.release(self._sampler)

    def _snapshot(self) -> Snapshot | None:
        return None if self._sampler is None else self._sampler.snapshot

    async def _run(self, sampler: Sampler) -> None:
        settings, config = self._settings, self._config
        # All metrics have one resource, so that the ratio of two of them matches without `on(…)`.
        host_name = (config.simulated.host_name if config.backend == "simulated" else "") or socket.gethostname()
        # Prometheus makes its label ``instance`` of the instance id; other resource attributes are not labels there.
        resource = {"service.instance.id": host_name, "host.name": host_name}
        maker = MetricsMaker(config, resource, settings.version)
        output = settings.outputs[Signal.METRICS]
        while True:
            await settings.clock.sleep(config.collection_interval)
            self._metrics.update()
            batch = maker.make(sampler.snapshot, settings.clock.time_unix_nano())
            if batch is None:
                continue
            try:
                await output.consume(batch)
            except ConsumeError as exc:  # already counted; the next collection has newer values
                settings.telemetry.log.debug("the pipeline refused the metrics", reason=exc.reason)
