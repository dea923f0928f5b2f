"""What gives the values of expressions, one column for the rows of a view; constants give the same to all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np

from collector.ottl.values import Array, Scalar, Values
from collector.ottl.view import View

__all__ = [
    "ALWAYS",
    "NEVER",
    "NO_VIEW",
    "Argument",
    "Constant",
    "Evaluation",
    "Getter",
    "Items",
    "Part",
    "Predicate",
    "is_constant",
    "left_out",
]

Evaluation: TypeAlias = tuple[Array, Array]
"""(holds, failed): bool arrays of one row, which stands for all, or of all rows."""
Predicate: TypeAlias = Callable[[View], Evaluation]
"""A compiled condition."""
Getter: TypeAlias = Callable[[View], Values]
"""A compiled expression."""

NEVER: Final = np.zeros(1, np.bool_)
ALWAYS: Final = np.ones(1, np.bool_)
NO_VIEW: Any = None
"""In place of a view, for constants, which do not use it."""


class Constant:
    """A getter of a literal: the same value on every row."""

    def __init__(self, value: Scalar) -> None:
        self.value = value
        self._column = Values.constant(value)

    def __call__(self, view: View) -> Values:  # noqa: ARG002 - a getter's signature
        """The column of one row."""
        return self._column


class Argument:
    """A literal argument, which is passed as it is."""

    def __init__(self, value: Scalar) -> None:
        self.value = value

    def __call__(self, view: View) -> Scalar:  # noqa: ARG002 - a getter's signature
        """The literal."""
        return self.value


def is_constant(argument: Any) -> bool:
    """Whether an argument does not depend on the rows."""
    if isinstance(argument, Items):
        return all(isinstance(item, Constant) for item in argument.items)
    return argument is left_out or isinstance(argument, Constant | Argument)


class Items:
    """The getters of the items of a list argument, and itself the getter of their columns."""

    def __init__(self, items: Sequence[Getter]) -> None:
        self.items = items

    def __call__(self, view: View) -> list[Values]:
        """The columns of the items."""
        return [item(view) for item in self.items]


@dataclass(frozen=True, slots=True)
class Part:
    """A call, sum, product or path in a statement or condition, to explain why it failed."""

    name: str
    """What failed, as the subject of "failed, called with (types)" or as a whole sentence without arguments."""
    at: int
    get: Getter | None
    """None for an editor, which has no value."""
    arguments: Sequence[Any]


def left_out(_: View) -> None:
    """An argument that was not given."""
