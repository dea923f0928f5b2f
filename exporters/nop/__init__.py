"""Exporter ``nop``: accepts everything and keeps nothing."""

from exporters.nop.nop import factory

__all__ = ["factory"]
