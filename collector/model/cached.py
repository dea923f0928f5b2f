"""A cached property without a lock: that of ``functools`` takes one on Python 3.11, a microsecond for each read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["cached"]

Value = TypeVar("Value")


class cached(Generic[Value]):  # noqa: N801 - used like property
    """A property that is computed when it is first read, and then kept in the object.

    >>> class Column:
    ...     @cached
    ...     def size(self) -> int:
    ...         print("computed")
    ...         return 3
    >>> column = Column()
    >>> column.size, column.size
    computed
    (3, 3)
    """

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...
    def __get__(self, instance: object | None, owner: type) -> Self | Value:
        """The value of an object."""
        if instance is None:
            return self
        value = self._compute(instance)
        instance.__dict__[self._name] = value
        return value
