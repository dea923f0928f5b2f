"""Processor ``metrics_transform``: renames, labels, scales, combines and aggregates metrics."""

from processors.metrics_transform.factory import factory

__all__ = ["factory"]
