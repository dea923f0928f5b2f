"""Processor ``cardinality``: limits the number of series; overflow series keep the sums true."""

from processors.cardinality.factory import factory

__all__ = ["factory"]
