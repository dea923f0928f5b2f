"""Processor ``batch``: sends fewer, larger batches."""

from processors.batch.factory import factory

__all__ = ["factory"]
