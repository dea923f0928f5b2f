"""The receiver ``tcp_log``: log entries over TCP."""

from receivers.tcp_log.factory import factory

__all__ = ["factory"]
