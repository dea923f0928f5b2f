"""Stacks with values as a file in pprof's format: a gzip-compressed protobuf message.

Source: google/pprof proto/profile.proto (package perftools.profiles), whose messages are declared here.
"""

import gzip
from collections.abc import Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["Frame", "ProfileBuilder", "profile_type"]

_INT64: Final = descriptor_pb2.FieldDescriptorProto.TYPE_INT64
_UINT64: Final = descriptor_pb2.FieldDescriptorProto.TYPE_UINT64
_STRING: Final = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
# Message → field → (number, type or name of a message, whether it is repeated). Texts are places in string_table.
_MESSAGES: Final[dict[str, dict[str, tuple[int, Any, bool]]]] = {
    "ValueType": {"type": (1, _INT64, False), "unit": (2, _INT64, False)},
    "Label": {"key": (1, _INT64, False), "str": (2, _INT64, False)},
    "Sample": {"location_id": (1, _UINT64, True), "value": (2, _INT64, True), "label": (3, "Label", True)},
    "Line": {"function_id": (1, _UINT64, False), "line": (2, _INT64, False)},
    "Location": {"id": (1, _UINT64, False), "line": (4, "Line", True)},
    "Function": {
        "id": (1, _UINT64, False),
        "name": (2, _INT64, False),
        "system_name": (3, _INT64, False),
        "filename": (4, _INT64, False),
    },
    "Profile": {
        "sample_type": (1, "ValueType", True),
        "sample": (2, "Sample", True),
        "location": (4, "Location", True),
        "function": (5, "Function", True),
        "string_table": (6, _STRING, True),
        "time_nanos": (9, _INT64, False),
        "duration_nanos": (10, _INT64, False),
        "period_type": (11, "ValueType", False),
        "period": (12, _INT64, False),
        "default_sample_type": (14, _INT64, False),
    },
}


class Frame(NamedTuple):
    """One line of one function on a stack."""

    function: str
    file: str
    line: int


@cache
def profile_type() -> Any:
    """The class of the message ``Profile``."""
    file = descriptor_pb2.FileDescriptorProto(
        name="tailrace/pprof/profile.proto", package="perftools.profiles", syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, (number, type_, is_repeated) in fields.items():
            field = message.field.add(name=field_name, number=number)
            label = descriptor_pb2.FieldDescriptorProto
            field.label = label.LABEL_REPEATED if is_repeated else label.LABEL_OPTIONAL
            if isinstance(type_, str):
                field.type = label.TYPE_MESSAGE
                field.type_name = f".perftools.profiles.{type_}"
            else:
                field.type = type_
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("perftools.profiles.Profile"))


class ProfileBuilder:
    """Collects samples; every text, function and location is written once."""

    def __init__(self, *sample_types: tuple[str, str]) -> None:
        """``sample_types``: what the values of a sample are, and in which unit, such as ``("cpu", "nanoseconds")``.

        The last one is shown by default.
        """
        self._profile = profile_type()()
        self._texts: dict[str, int] = {}
        self._functions: dict[tuple[str, str], int] = {}
        self._locations: dict[Frame, int] = {}
        self._text("")  # place 0 must be empty
        for kind, unit in sample_types:
            self._profile.sample_type.add(type=self._text(kind), unit=self._text(unit))
        self._profile.default_sample_type = self._text(sample_types[-1][0])

    def add(self, stack: Sequence[Frame], values: Sequence[int], **labels: str) -> None:
        """Add a sample. ``stack`` begins with the function that ran; one value for each sample type."""
        sample = self._profile.sample.add(location_id=[self._location(frame) for frame in stack], value=values)
        for key, text in labels.items():
            sample.label.add(key=self._text(key), str=self._text(text))

    def period(self, kind: str, unit: str, value: int) -> None:
        """Say how often samples were taken."""
        self._profile.period_type.type = self._text(kind)
        self._profile.period_type.unit = self._text(unit)
        self._profile.period = value

    def build(self, *, time_unix_nano: int, duration_ns: int = 0) -> bytes:
        """The file. ``time_unix_nano``: when the profile began."""
        self._profile.time_nanos = time_unix_nano
        self._profile.duration_nanos = duration_ns
        del self._profile.string_table[:]
        self._profile.string_table.extend(self._texts)
        return gzip.compress(self._profile.SerializeToString())

    def _text(self, text: str) -> int:
        return self._texts.setdefault(text, len(self._texts))

    def _location(self, frame: Frame) -> int:
        known = self._locations.get(frame)
        if known is not None:
            return known
        number = self._locations[frame] = len(self._locations) + 1  # 0 is not a valid id
        location = self._profile.location.add(id=number)
        location.line.add(function_id=self._function(frame.function, frame.file), line=frame.line)
        return number

    def _function(self, name: str, file: str) -> int:
        known = self._functions.get((name, file))
        if known is not None:
            return known
        number = self._functions[name, file] = len(self._functions) + 1
        text = self._text(name)
        self._profile.function.add(id=number, name=text, system_name=text, filename=self._text(file))
        return number
