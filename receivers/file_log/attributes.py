"""The attributes ``log.file.*`` of a file."""

import grp
import os
import pwd
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

from receivers.file_log.config import FileLogConfig
from receivers.file_log.tail import Tail

__all__ = ["file_attributes"]


def file_attributes(tail: Tail, config: FileLogConfig) -> dict[str, Any]:
    """The attributes that the entries of a file get.

    Raises:
        OSError: The file cannot be examined.
    """
    made: dict[str, Any] = {}
    path = _text(tail.path)
    if config.include_file_name:
        made["log.file.name"] = PurePath(path).name
    if config.include_file_path:
        made["log.file.path"] = path
    if config.include_file_name_resolved or config.include_file_path_resolved:
        resolved = _text(os.path.realpath(tail.path))
        if config.include_file_name_resolved:
            made["log.file.name_resolved"] = PurePath(resolved).name
        if config.include_file_path_resolved:
            made["log.file.path_resolved"] = resolved
    if config.include_file_owner_name or config.include_file_owner_group_name:
        found = os.fstat(tail.open())
        if config.include_file_owner_name:
            made["log.file.owner.name"] = _name(lambda number: pwd.getpwuid(number).pw_name, found.st_uid)
        if config.include_file_owner_group_name:
            made["log.file.owner.group.name"] = _name(lambda number: grp.getgrgid(number).gr_name, found.st_gid)
    return made | (tail.header or {})


def _text(path: str) -> str:
    """A path in valid UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")


def _name(name_of: Callable[[int], str], number: int) -> str:
    try:
        return name_of(number)
    except KeyError:
        return str(number)
