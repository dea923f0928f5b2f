"""Configuration of ``headers_setter``. Source: opentelemetry-collector-contrib extension/headerssetterextension."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from config.blocks import ComponentConfig, Secret
from config.blocks.headers import HEADER_NAME

__all__ = ["HeaderConfig", "HeadersSetterConfig"]


class HeaderConfig(ComponentConfig):
    """One header and where its value comes from."""

    action: Literal["insert", "update", "upsert", "delete"] = "upsert"
    """insert: unless the request has the header; update: only if it has; upsert: in any case; delete: remove it."""
    key: str
    """Name of the header."""
    value: Secret | None = None
    """A fixed value."""
    value_file: str = ""
    """File with the value. It is read again when it changes."""
    from_context: str = ""
    """Header of the request that brought the data. The receiver must have include_metadata: true."""
    from_attribute: str = ""
    """Claim of the authenticated sender of the data, such as username."""
    default_value: Secret = Secret("")
    """With from_context and from_attribute: the value if there is none. Empty: the header is not set."""

    @field_validator("key")
    @classmethod
    def _is_header(cls, key: str) -> str:
        if not HEADER_NAME.fullmatch(key):
            raise ValueError(f"{key!r} is not a valid name of a header")
        return key

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        sources = [
            name
            for name in ("value", "value_file", "from_context", "from_attribute")
            if getattr(self, name) not in (None, "")
        ]
        if self.action == "delete":
            if sources:
                raise ValueError(f"action delete needs no value; remove {sources[0]}")
        elif len(sources) != 1:
            given = " and ".join(sources) or "none"
            raise ValueError(
                f"exactly one of value, value_file, from_context and from_attribute is required, got {given}"
            )
        if self.default_value.get_secret_value() and not (self.from_context or self.from_attribute):
            raise ValueError("default_value has no effect without from_context or from_attribute; remove it")
        return self


class HeadersSetterConfig(ComponentConfig):
    """Headers of the requests that clients with this authenticator send."""

    headers: tuple[HeaderConfig, ...] = Field(min_length=1)
    """The headers, applied in this order."""
    additional_auth: str = ""
    """Id of another authenticating extension, whose headers are set first. It must be listed in service::extensions."""
