"""Metrics of this machine's GPUs. See README.md."""

from receivers.gpu.factory import factory

__all__ = ["factory"]
