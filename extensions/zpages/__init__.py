"""Extension ``zpages``: pages for people that show the running service."""

from extensions.zpages.factory import factory

__all__ = ["factory"]
