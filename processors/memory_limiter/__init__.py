"""Processor ``memory_limiter``: sets the memory limits above which receivers refuse requests."""

from processors.memory_limiter.factory import factory

__all__ = ["factory"]
