"""Processor ``sampling``: tail sampling by rules, with adjusted counts that stay right; logs follow their traces."""

from processors.sampling.factory import factory

__all__ = ["factory"]
