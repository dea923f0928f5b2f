"""The receiver ``file_log``: log entries from files that grow and rotate."""

from receivers.file_log.factory import factory

__all__ = ["factory"]
