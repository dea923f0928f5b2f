"""Processor ``redaction``: deletes attributes that are not allowed and masks values that are blocked."""

from processors.redaction.factory import factory

__all__ = ["factory"]
