"""Processor ``cardinality``: limits the number of series; overflow series keep the sums true.

"Rule N" in this package and its tests refers to docs/reference/cardinality.md.
"""

from processors.cardinality.factory import factory

__all__ = ["factory"]
