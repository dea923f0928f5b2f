"""The base class of every configuration model."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator

__all__ = ["ComponentConfig"]


class ComponentConfig(BaseModel):
    """Base of every configuration: frozen, without unknown keys or weak casts. Its defaults are the component's."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=False,
        validate_default=False,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    null_means_default: ClassVar[bool] = True
    """Whether a bare key (``grpc:``) switches this block on with its defaults, instead of being ignored."""
    replaces_default: ClassVar[bool] = False
    """Whether a block that the user writes replaces an enclosing component's default of it completely.

    Normally the keys that a partial block leaves out keep the component's own defaults.
    """

    extension_keys: ClassVar[tuple[str, ...]] = ()
    """Keys of this block whose value, unless it is empty, must be the id of an extension in service::extensions."""

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
        completed = dict(values)
        for name, field in cls.model_fields.items():
            key = field.alias if field.alias in completed else name
            if isinstance(field.default, ComponentConfig) and isinstance(completed.get(key), Mapping):
                completed[key] = _completed(completed[key], field.default)
        return completed


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
