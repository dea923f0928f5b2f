"""Receiver ``prometheus``: scrapes targets with Prometheus' own configuration."""

from receivers.prometheus.factory import factory

__all__ = ["factory"]
