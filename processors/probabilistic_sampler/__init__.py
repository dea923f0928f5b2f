"""Processor ``probabilistic_sampler``: keeps a share of the spans or log records, each decided on its own."""

from processors.probabilistic_sampler.factory import factory

__all__ = ["factory"]
