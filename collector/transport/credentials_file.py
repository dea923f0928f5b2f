"""A credential that is kept in a file, and read again when the file changes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from collector.api import Clock
from collector.transport.tls import FileWatch

__all__ = ["CredentialsFile"]

_CHECK_INTERVAL_S: Final = 1.0
_MAX_BYTES: Final = 1 << 20


class CredentialsFile:
    """The content of a file. ``key``: path of its configuration key, for messages, which never show the content."""

    def __init__(self, path: str, parse: Callable[[str], Any], *, key: str, clock: Clock, log: Any) -> None:
        """``parse`` makes a value of the text; it raises ValueError if the text is not usable."""
        self._path, self._parse, self._key, self._log = path, parse, key, log
        self._clock = clock
        self._watch: FileWatch | None = None
        self._value: Any = None

    def open(self) -> None:
        """Read the file for the first time.

        Raises:
            ValueError: it cannot be read, or its content cannot be used.
        """
        self._watch = FileWatch((self._path,), _CHECK_INTERVAL_S, self._clock.monotonic_s)
        self._value = self._read()

    def value(self) -> Any:
        """What ``parse`` made of the file, as it was at most a second ago. A file that is unusable changes nothing."""
        if self._watch is not None and self._watch.changed():
            try:
                self._value = self._read()
            except ValueError as error:
                self._watch.forget()
                self._log.warning("credentials could not be read again; the previous ones are used", error=str(error))
            else:
                self._log.info("credentials were read again", key=self._key)
        return self._value

    def _read(self) -> Any:
        try:
            with Path(self._path).open("rb") as file:
                content = file.read(_MAX_BYTES + 1)
        except OSError as error:
            raise ValueError(f"{self._key}: cannot read {self._path}: {error.strerror}") from error
        if len(content) > _MAX_BYTES:
            raise ValueError(f"{self._key}: {self._path} is larger than {_MAX_BYTES} bytes")
        try:
            return self._parse(content.decode())
        except UnicodeDecodeError:
            raise ValueError(f"{self._key}: {self._path} is not UTF-8 text") from None
        except ValueError as error:
            raise ValueError(f"{self._key}: {self._path}: {error}") from None
