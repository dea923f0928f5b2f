"""The sampler's own metrics, as each component that uses it shows them."""

from collections.abc import Callable

from collector.api import Telemetry
from collector.gpu.sampler import Snapshot

__all__ = ["SamplerMetrics"]


class SamplerMetrics:
    """``tailrace_gpu_{devices,available,samples,sample_gaps}``, read from the newest snapshot."""

    def __init__(self, telemetry: Telemetry, snapshot: Callable[[], Snapshot | None]) -> None:
        self._snapshot = snapshot
        self._samples_count = self._gaps_count = 0
        self._samples = telemetry.counter("tailrace_gpu_samples", "Readings taken, one a device and turn.")
        self._gaps = telemetry.counter(
            "tailrace_gpu_sample_gaps", "Pauses of the sampler long enough to leave a gap in what is known."
        )
        telemetry.gauge("tailrace_gpu_devices", "GPUs and MIG slices that are sampled.", read=self._devices)
        telemetry.gauge(
            "tailrace_gpu_available",
            "1 while some GPU answers, else 0; the reason why not.",
            ("reason",),
            read=self._available,
        )

    def update(self) -> None:
        """Bring the counters up to the newest snapshot."""
        snapshot = self._snapshot()
        if snapshot is None:
            return
        # A sampler that several components share, or that a reload replaced, has counts from before this component.
        self._samples.add(max(0, snapshot.samples_count - self._samples_count))
        self._gaps.add(max(0, snapshot.gaps_count - self._gaps_count))
        self._samples_count, self._gaps_count = snapshot.samples_count, snapshot.gaps_count

    def _devices(self) -> float:
        self.update()
        snapshot = self._snapshot()
        return float(len(snapshot.devices)) if snapshot is not None and snapshot.is_available else 0.0

    def _available(self) -> dict[tuple[str, ...], float]:
        snapshot = self._snapshot()
        if snapshot is None:
            return {("not_started",): 0.0}
        return {(snapshot.reason,): float(snapshot.is_available)}
