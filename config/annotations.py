"""What the type annotations of a pydantic model say about a key: which models, secrets or texts it may hold."""

import re
import types
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, SecretBytes, SecretStr
from pydantic.fields import FieldInfo
from typing_extensions import TypeAliasType

from config.blocks.values import Duration

__all__ = [
    "accepts_none",
    "accepts_text",
    "allowed_keys",
    "child_annotations",
    "is_duration",
    "is_secret",
    "looks_secret",
    "models_among",
    "union_members",
]

_SECRET_KEY = re.compile(
    r"passw(or)?d|passphrase|secret|token|api[-_]?key|access[-_]?key|credential|authorization|private|hmac|dsn|cookie"
    r"|(^|_)(key|cert|ca)_pem$",
    re.IGNORECASE,
)

(_DURATION_READER,) = (part for part in get_args(Duration) if isinstance(part, BeforeValidator))


def looks_secret(key: str) -> bool:
    """Whether a key of this name usually holds a secret; for settings that no model describes."""
    return bool(_SECRET_KEY.search(key))


def union_members(annotation: Any) -> list[Any]:
    """The members of a union, or the annotation alone, without ``Annotated`` and type aliases."""
    if isinstance(annotation, TypeAliasType):
        return union_members(annotation.__value__)
    origin = get_origin(annotation)
    if origin is Annotated:
        return union_members(get_args(annotation)[0])
    if origin is Union or origin is types.UnionType:
        return [inner for member in get_args(annotation) for inner in union_members(member)]
    return [annotation]


def models_among(annotations: Iterable[Any]) -> list[type[BaseModel]]:
    """The models among the annotations."""
    return [
        annotation for annotation in annotations if isinstance(annotation, type) and issubclass(annotation, BaseModel)
    ]


def _key(name: str, field: FieldInfo) -> str:
    alias = field.validation_alias or field.alias
    return alias if isinstance(alias, str) else name


def allowed_keys(annotations: Iterable[Any], written: Collection[str] = ()) -> list[str]:
    """The keys of the models among the annotations, sorted.

    ``written``: the keys that the user has written there. The keys of an inline block replace that of the block unless
    the user has written the block.
    """
    keys: set[str] = set()
    for model in models_among(annotations):
        keys.update(_key(name, field) for name, field in model.model_fields.items())
        inline = _inline_block(model)
        if inline and inline not in written:
            keys.remove(inline)
            keys.update(allowed_keys(union_members(model.model_fields[inline].annotation)))
    return sorted(keys)


def _inline_block(model: type[BaseModel]) -> str:
    inline: str = getattr(model, "inline_block", "")
    return inline


def is_duration(annotations: Iterable[Any], step: str | int) -> bool:
    """Whether the value under ``step``, a key or an index, is a duration."""
    for annotation in annotations:
        if models_among([annotation]):
            for name, field in annotation.model_fields.items():
                if step in (name, _key(name, field)):
                    return _DURATION_READER in field.metadata or _may_be_duration(field.annotation)
        elif any(_may_be_duration(argument) for argument in get_args(annotation)):
            return True
    return False


def _may_be_duration(annotation: Any) -> bool:
    """Whether the annotation is that of a duration, or a union with it."""
    if get_origin(annotation) is Annotated:
        return _DURATION_READER in get_args(annotation) or _may_be_duration(get_args(annotation)[0])
    is_union = get_origin(annotation) in (Union, types.UnionType)
    return is_union and any(_may_be_duration(member) for member in get_args(annotation))


def child_annotations(annotations: Iterable[Any], step: str | int) -> list[Any]:
    """The annotations of the value under ``step``, a key or an index; empty if no such value is allowed."""
    found: list[Any] = []
    for annotation in annotations:
        if annotation is Any or annotation is object:
            found.append(Any)
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
            for name, field in annotation.model_fields.items():
                if step in (name, _key(name, field)):
                    found += union_members(field.annotation)
                    break
            else:
                if inline := _inline_block(annotation):
                    found += child_annotations(union_members(annotation.model_fields[inline].annotation), step)
                if annotation.model_config.get("extra") == "allow":
                    found.append(Any)
        elif annotation in (dict, list, tuple, set, frozenset):
            found.append(Any)
        else:
            origin, arguments = get_origin(annotation), get_args(annotation)
            if isinstance(origin, type) and issubclass(origin, Mapping) and len(arguments) == 2:
                found += union_members(arguments[1])
            elif origin in (list, tuple, set, frozenset) and arguments and isinstance(step, int):
                position = step if origin is tuple and arguments[-1] is not Ellipsis and step < len(arguments) else 0
                found += union_members(arguments[position])
    return found


def accepts_none(annotations: Iterable[Any]) -> bool:
    """Whether null is an allowed value."""
    return any(annotation in (None, type(None), Any) for annotation in annotations)


def accepts_text(annotations: Iterable[Any]) -> bool:
    """Whether text is an allowed value."""
    return any(
        (isinstance(annotation, type) and issubclass(annotation, str | SecretStr)) or "" in get_args(annotation)
        for annotation in annotations
    )


def is_secret(annotations: Iterable[Any]) -> bool:
    """Whether the value is a secret."""
    return any(
        isinstance(annotation, type) and issubclass(annotation, SecretStr | SecretBytes) for annotation in annotations
    )
