"""Receiver ``host_metrics``: metrics of the machine."""

from receivers.host_metrics.factory import factory

__all__ = ["factory"]
