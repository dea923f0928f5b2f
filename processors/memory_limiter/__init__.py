"""Processor ``memory_limiter``: sets the memory budget at the door."""

from processors.memory_limiter.factory import factory

__all__ = ["factory"]
