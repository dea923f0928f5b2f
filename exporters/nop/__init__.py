"""The ``nop`` exporter: takes everything and keeps nothing."""

from exporters.nop.nop import factory

__all__ = ["factory"]
