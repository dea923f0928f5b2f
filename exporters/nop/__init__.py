"""Exporter ``nop``: accepts everything and keeps nothing."""

from exporters.nop.factory import factory

__all__ = ["factory"]
