"""Configuration of ``memory_limiter``: the Collector's keys and rules.

Source: open-telemetry/opentelemetry-collector internal/memorylimiter/config.go.
"""

from collections.abc import Mapping
from typing import ClassVar, Final, Self

from pydantic import Field, model_validator

from config.blocks import ComponentConfig, Duration, OutdatedKey

__all__ = ["MemoryLimiterConfig"]

_MIB: Final = 1024 * 1024
_DEFAULT_SPIKE_PERCENTAGE: Final = 20


class MemoryLimiterConfig(ComponentConfig):
    """Configuration of ``memory_limiter``: limits the memory of the process."""

    outdated_keys: ClassVar[Mapping[str, OutdatedKey]] = {"ballast_size_mib": OutdatedKey()}

    check_interval: Duration = 0.0
    """Required: how often the memory of the process is measured. 1s is a good value."""
    limit_mib: int = Field(default=0, ge=0)
    """Hard limit in MiB, which takes precedence over ``limit_percentage``. One of the two is required."""
    spike_limit_mib: int = Field(default=0, ge=0)
    """How far the soft limit, above which requests are refused, is below the hard limit, in MiB. 0: 20 % of the hard
    limit.
    """
    limit_percentage: int = Field(default=0, ge=0, le=100)
    """Hard limit in percent of the memory limit of the container, or else of the memory of the machine."""
    spike_limit_percentage: int = Field(default=0, ge=0, le=100)
    """How far the soft limit is below the hard limit, in percent of the same memory. 0: 20 % of the hard limit."""
    min_gc_interval_when_soft_limited: Duration = Field(default=10.0, ge=0)
    """Shortest time between two garbage collections above the soft limit."""
    min_gc_interval_when_hard_limited: Duration = Field(default=0.0, ge=0)
    """Shortest time between two garbage collections above the hard limit."""
    max_gc_interval_when_soft_limited: Duration = Field(default=30.0, ge=0)
    """Accepted for compatibility; has no effect: the Collector backs off between collections of Go's heap, Python's are
    cheap.
    """
    max_gc_interval_when_hard_limited: Duration = Field(default=30.0, ge=0)
    """Accepted for compatibility with the Collector; has no effect."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.check_interval <= 0:
            raise ValueError("'check_interval' must be greater than zero, for example check_interval: 1s")
        if not self.limit_mib and not self.limit_percentage:
            raise ValueError("'limit_mib' or 'limit_percentage' must be greater than zero")
        for unit in ("mib", "percentage"):
            limit, spike = getattr(self, f"limit_{unit}"), getattr(self, f"spike_limit_{unit}")
            if limit and spike >= limit:
                raise ValueError(f"'spike_limit_{unit}' must be smaller than 'limit_{unit}'")
            if spike and not limit:
                raise ValueError(f"'spike_limit_{unit}' without 'limit_{unit}' has no effect")
        for kind in ("soft", "hard"):
            if getattr(self, f"min_gc_interval_when_{kind}_limited") > getattr(
                self, f"max_gc_interval_when_{kind}_limited"
            ):
                raise ValueError(
                    f"'max_gc_interval_when_{kind}_limited' must not be less than 'min_gc_interval_when_{kind}_limited'"
                )
        return self

    def limits_bytes(self, available_bytes: int) -> tuple[int, int]:
        """The limits (soft, hard) in bytes. Requests are refused above the soft limit."""
        if self.limit_mib:
            hard, spike = self.limit_mib * _MIB, self.spike_limit_mib * _MIB
        else:
            hard, spike = (
                available_bytes * self.limit_percentage // 100,
                available_bytes * self.spike_limit_percentage // 100,
            )
        return hard - (spike or hard * _DEFAULT_SPIKE_PERCENTAGE // 100), hard
