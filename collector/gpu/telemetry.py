"""The sampler's own metrics, exposed by each component that uses it."""

from collections.abc import Callable

from collector.api import Telemetry
from collector.gpu.sampler import Snapshot

__all__ = ["SamplerMetrics"]


class SamplerMetrics:
    """``tailrace_gpu_{devices,available,samples,sample_gaps}``, read from the newest snapshot."""

    def __init__(self, telemetry: Telemetry, snapshot: Callable[[], Snapshot | None]) -> None:
        self._snapshot = snapshot
        self._sample_count = self._gap_count = 0
        self._samples = telemetry.counter(
            "tailrace_gpu_samples", "Readings taken, one per device and sampling interval"
        )
        self._gaps = telemetry.counter(
            "tailrace_gpu_sample_gaps", "Pauses of the sampler that were long enough to leave a gap in the samples"
        )
        telemetry.gauge("tailrace_gpu_devices", "GPUs and MIG slices that are being sampled", read=self._devices)
        telemetry.gauge(
            "tailrace_gpu_available",
            "1 while at least one GPU responds, otherwise 0; the label reason says why",
            ("reason",),
            read=self._available,
        )

    def update(self) -> None:
        """Add what the newest snapshot has counted to the counters."""
        snapshot = self._snapshot()
        if snapshot is None:
            return
        # The sampler may be older than this component, and a reload may have replaced it by one that counts from 0.
        self._samples.add(max(0, snapshot.sample_count - self._sample_count))
        self._gaps.add(max(0, snapshot.gap_count - self._gap_count))
        self._sample_count, self._gap_count = snapshot.sample_count, snapshot.gap_count

    def _devices(self) -> float:
        self.update()
        snapshot = self._snapshot()
        return float(len(snapshot.devices)) if snapshot is not None and snapshot.is_available else 0.0

    def _available(self) -> dict[tuple[str, ...], float]:
        snapshot = self._snapshot()
        if snapshot is None:
            return {("not_started",): 0.0}
        return {(snapshot.reason,): float(snapshot.is_available)}
