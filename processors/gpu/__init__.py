"""Processor ``gpu``: records on each span and log record what the GPU did in its time."""

from processors.gpu.factory import factory

__all__ = ["factory"]
