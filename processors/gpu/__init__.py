"""Says on each span and log line what the GPU did meanwhile. See README.md."""

from processors.gpu.factory import factory

__all__ = ["factory"]
