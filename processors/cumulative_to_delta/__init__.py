"""Processor ``cumulative_to_delta``: converts cumulative values to deltas."""

from processors.cumulative_to_delta.factory import factory

__all__ = ["factory"]
