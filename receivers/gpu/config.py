"""The configuration under ``receivers: gpu:``."""

from typing import Literal

from pydantic import Field

from collector.gpu import GpuSourceConfig
from config import Duration

__all__ = ["GpuReceiverConfig"]


class GpuReceiverConfig(GpuSourceConfig):
    """Configuration of ``gpu``: sends metrics of the GPUs of this host."""

    collection_interval: Duration = Field(default=15.0, ge=0.01)
    """Time between two batches of metrics."""
    legacy_names: bool = False
    """Whether to also send ``cuda_memory_usage_bytes``, ``cuda_memory_total_bytes`` and ``cuda_utilization_percent``.
    """
    device_label: Literal["index", "uuid"] = "index"
    """Value of the label ``device`` of these three metrics: the index or the UUID of the device."""
