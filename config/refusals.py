"""What a component raises while it is made, as findings at the places that it is about."""

from collections.abc import Iterable

from config.blocks import InvalidSettings
from config.errors import ConfigError
from config.model import Config, ConfiguredComponent

__all__ = ["refusals"]


def refusals(config: Config, component: ConfiguredComponent, error: Exception) -> Iterable[ConfigError]:
    """The findings about a component of ``config`` whose factory has raised ``error``.

    The text of an error may begin with the path of a key and a colon: the whole path
    (``exporters::debug::verbosity: …``), or its part within the component (``verbosity: …``).
    """
    path = (str(component.kind), str(component.id))
    if isinstance(error, InvalidSettings):
        found = [(tuple(map(str, keys)), text) for keys, text in error.findings]
    else:
        found = [_keys_and_text(config, path, str(error) or type(error).__name__)]
    for keys, text in found:
        position = config.position(*path, *keys) if config.document.node(*path) is not None else component.position
        yield ConfigError(position, (*path, *keys), text)


def _keys_and_text(config: Config, path: tuple[str, ...], text: str) -> tuple[tuple[str, ...], str]:
    """The path of the key below ``path`` that the text begins with, and the rest."""
    start, separator, rest = text.partition(": ")
    keys = tuple(start.split("::")) if separator else ()
    if keys[: len(path)] == path:
        return keys[len(path) :], rest
    if keys and config.document.node(*path, *keys) is not None:
        return keys, rest
    return (), text
