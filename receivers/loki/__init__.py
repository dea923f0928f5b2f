"""Receiver ``loki``: Loki's push API."""

from receivers.loki.factory import factory

__all__ = ["factory"]
