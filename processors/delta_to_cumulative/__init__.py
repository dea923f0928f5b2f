"""Processor ``delta_to_cumulative``: converts deltas to cumulative values."""

from processors.delta_to_cumulative.factory import factory

__all__ = ["factory"]
