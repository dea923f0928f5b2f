"""Extension ``headers_setter``: headers of exporters' requests, from the request the data came with."""

from extensions.headers_setter.factory import factory

__all__ = ["factory"]
