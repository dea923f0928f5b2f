"""Processor ``span``: renames spans, extracts attributes from their names, sets their status."""

from processors.span.factory import factory

__all__ = ["factory"]
