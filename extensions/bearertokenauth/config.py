"""Configuration of ``bearertokenauth``. Source: opentelemetry-collector-contrib extension/bearertokenauthextension."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from config.blocks import ComponentConfig, Secret
from config.blocks.headers import HEADER_NAME

__all__ = ["BearerTokenAuthConfig"]


class BearerTokenAuthConfig(ComponentConfig):
    """Tokens that servers accept and clients send."""

    header: str = "Authorization"
    """Header that has the token."""
    scheme: str = "Bearer"
    """What precedes the token in the header. Empty: the header has the token alone."""
    token: Secret = Secret("")
    """The token."""
    tokens: tuple[Secret, ...] = Field(default=(), max_length=10_000)
    """Several tokens, instead of token: servers accept any of them, clients send the first."""
    filename: str = ""
    """File with one token per line, instead of the keys above. It is read again when it changes."""

    @field_validator("header")
    @classmethod
    def _is_header(cls, header: str) -> str:
        if not HEADER_NAME.fullmatch(header):
            raise ValueError(f"{header!r} is not a valid name of a header")
        return header

    @model_validator(mode="after")
    def _has_token(self) -> Self:
        if self.token.get_secret_value() and self.tokens:
            raise ValueError("either token or tokens may be set, not both")
        if not self.token.get_secret_value() and not self.tokens and not self.filename:
            raise ValueError("one of token, tokens and filename is required")
        return self
