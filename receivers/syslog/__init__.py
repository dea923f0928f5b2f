"""The receiver ``syslog``: messages of RFC 3164 and RFC 5424 over TCP, TLS or UDP."""

from receivers.syslog.factory import factory

__all__ = ["factory"]
