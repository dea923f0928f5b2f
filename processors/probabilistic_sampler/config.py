"""Configuration of ``probabilistic_sampler``: the Collector's keys and defaults.

Source: opentelemetry-collector-contrib processor/probabilisticsamplerprocessor/config.go.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from config.blocks import ComponentConfig

__all__ = ["ProbabilisticSamplerConfig"]


class ProbabilisticSamplerConfig(ComponentConfig):
    """Configuration of ``probabilistic_sampler``: keeps a share of the items."""

    sampling_percentage: float = Field(ge=0, allow_inf_nan=False)
    """Percentage of the items to keep, from 0 to 100; values above 100 count as 100."""
    mode: Literal["hash_seed", "proportional", "equalizing"] = "hash_seed"
    """hash_seed hashes the trace id, proportional keeps a share of what arrives, equalizing brings every item to the
    same share.
    """
    hash_seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed that is hashed before the id. Use the same one on all collectors of a tier, and another one on the next
    tier.
    """
    fail_closed: bool = True
    """Whether to drop items without randomness, or with malformed or contradictory sampling information."""
    sampling_precision: int = Field(default=4, ge=1, le=14)
    """Number of hexadecimal digits of a threshold."""
    attribute_source: Literal["traceID", "record"] = "traceID"
    """For logs with ``hash_seed``: whether the trace id is hashed, or only ``from_attribute`` of the record."""
    from_attribute: str = ""
    """For logs: the attribute to hash if a record does not have a trace id."""
    sampling_priority: str = ""
    """For logs: the attribute with the percentage that replaces the share for a record."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.attribute_source == "record" and not self.from_attribute and not self.sampling_priority:
            raise ValueError(
                "attribute_source: record needs from_attribute, the attribute of the record that is hashed"
            )
        return self

    @property
    def ratio(self) -> float:
        """The share that is kept, 0 to 1."""
        return min(self.sampling_percentage, 100.0) / 100.0
