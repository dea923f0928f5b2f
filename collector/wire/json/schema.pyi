__all__ = ["NESTING_MAX"]

NESTING_MAX: int
