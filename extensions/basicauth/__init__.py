"""Extension ``basicauth``: HTTP basic authentication, of servers' clients or as a client."""

from extensions.basicauth.factory import factory

__all__ = ["factory"]
