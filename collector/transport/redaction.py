"""Keeps credentials out of messages: a client's configured secrets never appear in an error or a log line."""

import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote, urlsplit, urlunsplit

__all__ = ["Redactor", "arguments_without_values", "without_credentials"]

_MIN_SECRET_CHARS = 4  # shorter ones would redact ordinary words
_WHOLE_WORD_BELOW_CHARS = 8  # "la[REDACTED]" would show that the secret is "test"
_EXCERPT_CHARS = 200


class Redactor:
    """Replaces known secrets in text."""

    def __init__(self, secrets: Iterable[str], urls: Iterable[str] = ()) -> None:
        known = {secret for secret in secrets if len(secret) >= _MIN_SECRET_CHARS}
        # In "Bearer abc", the token alone is a secret as well.
        known |= {part for secret in known for part in secret.split() if len(part) > 2 * _MIN_SECRET_CHARS}
        for url in urls:
            parts = urlsplit(url)
            # A user without a password is a token.
            for raw in filter(None, (parts.password or parts.username, parts.query)):
                known |= {text for text in (raw, unquote(raw)) if len(text) >= _MIN_SECRET_CHARS}
        patterns = [_pattern(secret) for secret in sorted(known, key=len, reverse=True)]
        self._secrets = re.compile("|".join(patterns)) if patterns else None

    def text(self, text: str) -> str:
        """Return ``text`` with ``[REDACTED]`` in place of secrets; short ones only where they are a whole word."""
        return text if self._secrets is None else self._secrets.sub("[REDACTED]", text)

    def excerpt(self, body: bytes | str) -> str:
        """Return the beginning of a server's response, printable, on one line, without secrets."""
        text = body if isinstance(body, str) else body[: 4 * _EXCERPT_CHARS].decode("utf-8", "replace")
        shown = " ".join("".join(ch if ch.isprintable() else " " for ch in self.text(text)).split())
        return shown if len(shown) <= _EXCERPT_CHARS else shown[:_EXCERPT_CHARS] + "…"


def _pattern(secret: str) -> str:
    pattern = re.escape(secret)
    return rf"(?<!\w){pattern}(?!\w)" if len(secret) < _WHOLE_WORD_BELOW_CHARS else pattern


def without_credentials(url: str) -> str:
    """Return the URL without user, password, query and fragment, for messages."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def arguments_without_values(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a command line, each cut off where a setting or inline configuration begins.

    >>> arguments_without_values(["tailrace", "run", "--config", "/etc/tailrace.yaml", "--set", "exporters.a.token=x"])
    ['tailrace', 'run', '--config', '/etc/tailrace.yaml', '--set', 'exporters.a.token=[REDACTED]']
    >>> arguments_without_values(["--config=yaml:exporters::a::token: x"])
    ['--config=[REDACTED]']
    """
    shown = []
    for argument in arguments:
        found = re.search(r"[=:]", argument)
        is_whole = found is None or found.end() == len(argument)
        shown.append(argument if is_whole or found is None else f"{argument[: found.end()]}[REDACTED]")
    return shown
