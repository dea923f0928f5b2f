"""Extension ``oidc``: authenticates callers of servers by tokens of OpenID Connect."""

from extensions.oidc.factory import factory

__all__ = ["factory"]
