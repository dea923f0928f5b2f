"""The base class of every configuration model."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

__all__ = ["ComponentConfig"]


class ComponentConfig(BaseModel):
    """Base of every configuration: frozen, without unknown keys or weak casts. Its defaults are the component's."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=False,
        validate_default=False,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    null_means_default: ClassVar[bool] = True
    """Whether a bare key (``grpc:``) switches this block on with its defaults, instead of being ignored."""
