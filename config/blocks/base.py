"""The base class of every configuration model."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

__all__ = ["ComponentConfig", "InvalidSettings", "OutdatedKey"]


class InvalidSettings(ValueError):  # noqa: N818 - the plural says what it holds
    """What a validator raises if several keys may be wrong: each is reported at its own place.

    ``findings`` are pairs of the path of a key below the value that is validated, and what is wrong.

    Example::

        @field_validator("headers")
        @classmethod
        def _are_tokens(cls, headers: dict[str, str]) -> dict[str, str]:
            if wrong := [((name,), f"{name!r} is not a valid name") for name in headers if " " in name]:
                raise InvalidSettings(*wrong)
            return headers
    """

    def __init__(self, *findings: tuple[tuple[str | int, ...], str]) -> None:
        self.findings = findings
        texts = [f"{'::'.join(map(str, keys))}: {message}" if keys else message for keys, message in findings]
        super().__init__("; ".join(texts))


@dataclass(frozen=True, slots=True)
class OutdatedKey:
    """A key that the Collector has renamed or removed. It is still accepted, with a warning.

    If the key is not a field of the model, its value moves to ``write``. If it is one, it keeps its effect.
    """

    write: str = ""
    """The key to write now, as a path within the block (``tls::insecure``); empty: the setting has no effect."""
    convert: Callable[[Any], Any] | None = None
    """What makes the value of ``write`` from the old value; None: the value stays the same."""


class ComponentConfig(BaseModel):
    """Base of every configuration: frozen, without unknown keys or weak casts. Its defaults are the component's."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=False,
        validate_default=False,
        populate_by_name=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,  # it may be a secret
    )

    null_means_default: ClassVar[bool] = True
    """Whether a bare key (``grpc:``) switches this block on with its defaults, instead of being ignored."""
    replaces_default: ClassVar[bool] = False
    """Whether a block that the user writes replaces an enclosing component's default of it completely.

    Normally the keys that a partial block leaves out keep the component's own defaults.
    """

    extension_keys: ClassVar[tuple[str, ...]] = ()
    """Keys of this block whose value, unless it is empty, must be the id of an extension in service::extensions."""
    outdated_keys: ClassVar[Mapping[str, OutdatedKey]] = {}
    """Keys of older versions that are accepted with a warning."""

    inline_block: ClassVar[str] = ""
    """The key of a block whose keys the user may also write directly into this one; empty: there is none."""

    def warnings(self) -> Iterable[tuple[str, str]]:
        """What users should know about valid settings: pairs of a key of this block and a sentence.

        ``validate`` and ``run`` show them. The sentence says what will happen, and what to write instead. Blocks within
        this one are asked by themselves.

        Example::

            def warnings(self) -> Iterable[tuple[str, str]]:
                if self.profiles_endpoint:
                    yield "profiles_endpoint", "this setting has no effect: profiles are not supported"
        """
        return ()

    def missing_resource_attributes(self, missing: frozenset[str]) -> frozenset[str]:
        """For the configuration of a processor: the keys of resource attributes that nothing has behind it.

        ``missing`` are those that nothing has in front of it. ``validate`` warns if an exporter needs one of them.
        """
        return missing

    @model_validator(mode="before")
    @classmethod
    def _complete_partial_blocks(cls, values: Any) -> Any:
        """``values`` with this component's own defaults for the keys that its partial blocks leave out."""
        if not isinstance(values, Mapping):
            return values
        completed = cls._with_present_keys(values)
        for name, field in cls.model_fields.items():
            key = field.alias if field.alias in completed else name
            if isinstance(field.default, ComponentConfig) and isinstance(completed.get(key), Mapping):
                completed[key] = _completed(completed[key], field.default)
        return completed

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The JSON Schema of the model, with its outdated keys marked as deprecated."""
        written = handler(schema)
        if cls.outdated_keys:
            properties = handler.resolve_ref_schema(written).setdefault("properties", {})
            for key, outdated in cls.outdated_keys.items():
                advice = f"Outdated; write {outdated.write}." if outdated.write else "Outdated; has no effect."
                properties[key] = {"description": advice, **properties.get(key, {}), "deprecated": True}
        return written

    @classmethod
    def _with_present_keys(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of ``values`` in which what is written under outdated keys is under the present ones."""
        present = dict(values)
        for old, outdated in cls.outdated_keys.items():
            if old in cls.model_fields or old not in present:
                continue
            value = present.pop(old)
            if outdated.write:
                value = value if outdated.convert is None else outdated.convert(value)
                _place(present, outdated.write.split("::"), value, old)
        return present


def _place(block: dict[str, Any], path: list[str], value: Any, old: str) -> None:
    """Put ``value`` at ``path``, in copies of the blocks on the way.

    Raises:
        ValueError: something else is written there.
    """
    *outer, last = path
    for key in outer:
        inner = block.get(key)
        if inner is not None and not isinstance(inner, Mapping):
            return  # not a block: the validation of that key reports it
        block[key] = dict(inner or {})
        block = block[key]
    if last in block and block[last] != value:
        raise ValueError(f"{old} is the outdated form of {'::'.join(path)}, which is written as well; remove {old}")
    block[last] = value


def _completed(block: Mapping[str, Any], default: ComponentConfig) -> Mapping[str, Any]:
    """``block`` with what ``default`` sets explicitly, at every depth."""
    if default.replaces_default:
        return block
    completed = dict(block)
    written = default.model_dump(by_alias=True, exclude_unset=True)  # as a user would write it
    for name in default.model_fields_set:
        alias = type(default).model_fields[name].alias or name
        key = name if name in completed else alias
        value = getattr(default, name)
        if key not in completed:
            completed[key] = written[alias]
        elif isinstance(value, ComponentConfig) and isinstance(completed[key], Mapping):
            completed[key] = _completed(completed[key], value)
    return completed
