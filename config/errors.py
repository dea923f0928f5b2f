"""What is wrong with a configuration: every finding at once, each with its place and with advice on how to fix it.

A finding reads ``file:line:column: path: message (did you mean 'x'?); hint``. Secrets are never part of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from config.yaml import Position

__all__ = ["ConfigError", "ConfigErrors", "Findings"]


@dataclass(frozen=True, slots=True)
class ConfigError:
    """One finding. ``str()`` is the line to show."""

    position: Position
    path: tuple[str, ...]
    message: str
    suggestion: str = ""
    """The name that was probably meant."""
    hint: str = ""
    """What is expected, or how to fix it."""

    @property
    def file(self) -> str:
        """The file, or ``--set …``."""
        return self.position.file

    @property
    def line(self) -> int:
        """Counted from 1; 0 if there is no place in the file."""
        return self.position.line

    @property
    def column(self) -> int:
        """Counted from 1; 0 if there is no place in the file."""
        return self.position.column

    def __str__(self) -> str:
        path = f"{'::'.join(self.path)}: " if self.path else ""
        suggestion = f" (did you mean {self.suggestion!r}?)" if self.suggestion else ""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.position}: {path}{self.message}{suggestion}{hint}"


class ConfigErrors(ValueError):  # noqa: N818 - the plural says what it holds
    """A configuration that cannot run; ``errors`` holds every finding, in the order of files and lines.

    ``warnings`` may say why, for example that a variable is not set. They come first in the text.
    """

    def __init__(self, errors: Sequence[ConfigError], warnings: Sequence[ConfigError] = ()) -> None:
        self.errors = tuple(dict.fromkeys(errors))
        self.warnings = tuple(dict.fromkeys(warnings))
        super().__init__("\n".join(str(finding) for finding in (*self.warnings, *self.errors)))


@dataclass(slots=True)
class Findings:
    """Collects errors and warnings while a configuration is read."""

    errors: list[ConfigError] = field(default_factory=list)
    warnings: list[ConfigError] = field(default_factory=list)

    def error(
        self, position: Position, path: tuple[str, ...], message: str, *, suggestion: str = "", hint: str = ""
    ) -> None:
        """Add a finding that makes the configuration unusable."""
        self.errors.append(ConfigError(position, path, message, suggestion, hint))

    def warning(
        self, position: Position, path: tuple[str, ...], message: str, *, suggestion: str = "", hint: str = ""
    ) -> None:
        """Add a finding that does not keep the configuration from running."""
        self.warnings.append(ConfigError(position, path, message, suggestion, hint))
