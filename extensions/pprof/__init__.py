"""Extension ``pprof``: profiles of the running process, for ``go tool pprof`` and its kin."""

from extensions.pprof.factory import factory

__all__ = ["factory"]
