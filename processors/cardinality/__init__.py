"""Processor ``cardinality``: caps the number of series and keeps sums true by merging the excess into overflow series."""

from processors.cardinality.factory import factory

__all__ = ["factory"]
