"""Extension ``bearertokenauth``: static tokens, checked for servers or sent by clients."""

from extensions.bearertokenauth.factory import factory

__all__ = ["factory"]
