"""Text from outside, made safe to be shown in a log or on a terminal."""

__all__ = ["printable"]


def printable(text: str) -> str:
    r"""The text on one line, with control characters, line breaks and bidi controls escaped, as ``\n`` or ``\x1b``.

    What is escaped is everything that Unicode does not class as printable, so neither a forged line nor a terminal
    sequence nor a hidden character remains. Backslashes are kept as they are.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
