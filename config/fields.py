"""What a pydantic model says about the keys below it: which models, secrets and texts stand where. Shared by ``explain`` and ``dump``."""

import re
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic.fields import FieldInfo
from typing_extensions import TypeAliasType

__all__ = [
    "accepts_none",
    "accepts_text",
    "allowed_keys",
    "alternatives",
    "child",
    "is_secret",
    "looks_secret",
    "models",
]

_SECRET_KEY = re.compile(
    r"passw(or)?d|passphrase|secret|token|api[-_]?key|access[-_]?key|credential|authorization|private|hmac|dsn|cookie|(^|_)(key|cert|ca)_pem$",
    re.IGNORECASE,
)


def looks_secret(key: str) -> bool:
    """Whether a key of that name holds a secret as a rule; for settings no model describes."""
    return bool(_SECRET_KEY.search(key))


def alternatives(annotation: Any) -> list[Any]:
    """The annotation's alternatives, without ``Annotated`` and aliases."""
    if isinstance(annotation, TypeAliasType):
        return alternatives(annotation.__value__)
    origin = get_origin(annotation)
    if origin is Annotated:
        return alternatives(get_args(annotation)[0])
    if origin is Union or origin is types.UnionType:
        return [each for member in get_args(annotation) for each in alternatives(member)]
    return [annotation]


def models(annotations: Iterable[Any]) -> list[type[BaseModel]]:
    """The models among the annotations."""
    return [each for each in annotations if isinstance(each, type) and issubclass(each, BaseModel)]


def _key(name: str, field: FieldInfo) -> str:
    alias = field.validation_alias or field.alias
    return alias if isinstance(alias, str) else name


def allowed_keys(annotations: Iterable[Any]) -> list[str]:
    """The keys that the models among the annotations know."""
    return sorted({_key(name, field) for model in models(annotations) for name, field in model.model_fields.items()})


def child(annotations: Iterable[Any], step: str | int) -> list[Any]:
    """The alternatives for what stands under ``step``; empty where nothing may."""
    found: list[Any] = []
    for annotation in annotations:
        if annotation is Any or annotation is object:
            found.append(Any)
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
            for name, field in annotation.model_fields.items():
                if step in (name, _key(name, field)):
                    found += alternatives(field.annotation)
                    break
            else:
                if annotation.model_config.get("extra") == "allow":
                    found.append(Any)
        elif annotation in (dict, list, tuple, set, frozenset):
            found.append(Any)
        else:
            origin, arguments = get_origin(annotation), get_args(annotation)
            if isinstance(origin, type) and issubclass(origin, Mapping) and len(arguments) == 2:
                found += alternatives(arguments[1])
            elif origin in (list, tuple, set, frozenset) and arguments and isinstance(step, int):
                position = step if origin is tuple and arguments[-1] is not Ellipsis and step < len(arguments) else 0
                found += alternatives(arguments[position])
    return found


def accepts_none(annotations: Iterable[Any]) -> bool:
    """Whether null is a value here."""
    return any(each in (None, type(None), Any) for each in annotations)


def accepts_text(annotations: Iterable[Any]) -> bool:
    """Whether the target is (also) text."""
    return any(
        (isinstance(each, type) and issubclass(each, str | SecretStr)) or "" in get_args(each) for each in annotations
    )


def is_secret(annotations: Iterable[Any]) -> bool:
    """Whether the target is a secret."""
    return any(isinstance(each, type) and issubclass(each, SecretStr | SecretBytes) for each in annotations)
