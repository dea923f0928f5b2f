"""Processor ``transform``: changes spans, metrics and logs by statements of OTTL."""

from processors.transform.factory import factory

__all__ = ["factory"]
