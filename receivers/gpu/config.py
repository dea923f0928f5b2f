"""The configuration under ``receivers: gpu:``."""

from typing import Literal

from pydantic import Field

from collector.gpu import GpuSourceConfig
from config import Duration

__all__ = ["GpuReceiverConfig"]


class GpuReceiverConfig(GpuSourceConfig):
    """See README.md."""

    collection_interval: Duration = Field(default=15.0, ge=0.01)
    legacy_names: bool = False
    """Also send ``cuda_memory_usage_bytes``, ``cuda_memory_total_bytes`` and ``cuda_utilization_percent``."""
    device_label: Literal["index", "uuid"] = "index"
    """The value of the label ``device`` of those three."""
