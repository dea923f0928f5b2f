"""The extension ``health_check``: one URL for probes."""

from extensions.health_check.factory import factory

__all__ = ["factory"]
