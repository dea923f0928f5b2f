"""The receiver ``udp_log``: log entries over UDP."""

from receivers.udp_log.factory import factory

__all__ = ["factory"]
