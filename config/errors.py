"""What is wrong with a configuration: all of it at once, each with its place, in words that say what to change.

``file:line:column: path: message "value" (did you mean "…"?)``; secrets are never part of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from config.yaml import Position

__all__ = ["ConfigError", "ConfigErrors"]


@dataclass(frozen=True, slots=True)
class ConfigError:
    """One finding. ``str()`` is the line to show."""

    position: Position
    path: tuple[str, ...]
    message: str
    value: str = ""
    """The offending value, as text; empty where there is none or it must not be shown."""
    suggestion: str = ""
    """What was probably meant."""

    @property
    def file(self) -> str:
        """The file, or ``--set …``."""
        return self.position.file

    @property
    def line(self) -> int:
        """From 1; 0: no place in the file."""
        return self.position.line

    @property
    def column(self) -> int:
        """From 1; 0: no place in the file."""
        return self.position.column

    def __str__(self) -> str:
        path = f"{'::'.join(self.path)}: " if self.path else ""
        head, separator, tail = self.message.partition("; ")
        meant = f' (did you mean "{self.suggestion}"?)' if self.suggestion else ""
        return f"{self.position}: {path}{head}{meant}{separator}{tail}"


class ConfigErrors(ValueError):  # noqa: N818 - the plural says what it holds
    """A configuration that cannot run; ``errors`` holds every finding, in the order of files and lines."""

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        self.errors = tuple(dict.fromkeys(errors))
        super().__init__("\n".join(str(error) for error in self.errors))
