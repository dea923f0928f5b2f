"""Processor ``tail_sampling``: samples whole traces by the Collector's policies."""

from processors.tail_sampling.factory import factory

__all__ = ["factory"]
