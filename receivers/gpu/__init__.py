"""Receiver ``gpu``: metrics of this machine's GPUs."""

from receivers.gpu.factory import factory

__all__ = ["factory"]
