"""The extension ``file_storage``: queues and states that survive a restart, in files."""

from extensions.file_storage.factory import factory

__all__ = ["factory"]
