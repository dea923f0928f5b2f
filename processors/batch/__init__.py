"""Processor ``batch``: joins batches into fewer, larger ones."""

from processors.batch.factory import factory

__all__ = ["factory"]
