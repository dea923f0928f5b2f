"""Configuration of ``oidc``. Source: opentelemetry-collector-contrib extension/oidcauthextension (v0.160)."""

from collections.abc import Iterable
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from config.blocks import ComponentConfig, Duration
from config.blocks.headers import HEADER_NAME

__all__ = ["OIDCConfig", "ProviderConfig"]

_DEPRECATED = ("issuer_url", "audience", "ignore_audience", "issuer_ca_path", "username_claim", "groups_claim")


class ProviderConfig(ComponentConfig):
    """An issuer of tokens, and what its tokens must have."""

    issuer_url: str = ""
    """URL of the issuer. Its keys are found at ``<issuer_url>/.well-known/openid-configuration``."""
    audience: str = ""
    """The audience that tokens must be for. Required unless ``ignore_audience``."""
    ignore_audience: bool = False
    """Whether tokens for any audience are accepted."""
    ignore_issuer: bool = False
    """Whether tokens that name another issuer are accepted, if they are signed with a key of this one."""
    issuer_ca_path: str = ""
    """File with the certificate authority of the issuer's server. Empty: those of the system."""
    username_claim: str = ""
    """The claim that becomes ``subject``. Empty: ``sub``. Tokens without it are refused."""
    groups_claim: str = ""
    """The claim that becomes ``membership``. Tokens without it are refused. Empty: none."""
    public_keys_file: str = ""
    """File with the issuer's keys as a JSON Web Key Set, read again when it changes; the issuer is then not asked."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.issuer_url:
            raise ValueError("issuer_url: required, for example https://login.example.com/realms/main")
        try:
            parts = urlsplit(self.issuer_url)
            is_url = parts.scheme in {"http", "https"} and bool(parts.hostname)
        except ValueError:
            is_url = False
        if not is_url and not self.public_keys_file:
            raise ValueError("issuer_url: expected a URL with http:// or https://")
        if not self.audience and not self.ignore_audience:
            raise ValueError("audience: required unless ignore_audience is true")
        return self


class OIDCConfig(ComponentConfig):
    """Configuration of ``oidc``: whose tokens are accepted."""

    attribute: str = "authorization"
    """Header that has the scheme and the token, separated by a space."""
    providers: tuple[ProviderConfig, ...] = Field(default=(), max_length=100)
    """The issuers. If there are several, a token is checked against the one that it names."""
    issuer_url: str = ""
    """Of a single issuer; write it under ``providers`` instead, like the keys below."""
    audience: str = ""
    """Of a single issuer."""
    ignore_audience: bool = False
    """Of a single issuer."""
    issuer_ca_path: str = ""
    """Of a single issuer."""
    username_claim: str = ""
    """Of a single issuer."""
    groups_claim: str = ""
    """Of a single issuer."""
    clock_skew: Duration = Field(default=60.0, ge=0, le=600)
    """How far the issuer's clock may differ when the validity of a token is checked. Not a key of the Collector."""
    refresh_interval: Duration = Field(default=900.0, ge=10)
    """How often the keys are fetched. A token signed with an unknown key causes a fetch as well, at most once every ten
    seconds. Not a key of the Collector.
    """

    @field_validator("attribute")
    @classmethod
    def _is_header(cls, attribute: str) -> str:
        if attribute and not HEADER_NAME.fullmatch(attribute):
            raise ValueError(f"{attribute!r} is not a valid name of a header")
        return attribute or "authorization"

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        providers = self.all_providers()
        if not providers:
            raise ValueError("providers: at least one is required")
        if len(providers) > 1 and any(provider.ignore_issuer for provider in providers):
            raise ValueError("providers: ignore_issuer is only possible with a single provider")
        issuers = [provider.issuer_url for provider in providers]
        repeated = next((issuer for issuer in issuers if issuers.count(issuer) > 1), None)
        if repeated is not None:
            raise ValueError(f"providers: the issuer_url {repeated!r} occurs twice")
        return self

    def all_providers(self) -> tuple[ProviderConfig, ...]:
        """The providers, with the one that the keys at the top describe in front."""
        if not any(getattr(self, key) for key in _DEPRECATED):
            return self.providers
        single = ProviderConfig(
            issuer_url=self.issuer_url,
            audience=self.audience,
            ignore_audience=self.ignore_audience,
            issuer_ca_path=self.issuer_ca_path,
            username_claim=self.username_claim,
            groups_claim=self.groups_claim,
        )
        return (single, *self.providers)

    def warnings(self) -> Iterable[tuple[str, str]]:
        """Keys that the Collector will remove."""
        for key in _DEPRECATED:
            if getattr(self, key):
                yield key, "is deprecated; write it as a key of an entry of providers"
        for number, provider in enumerate(self.all_providers()):
            if provider.issuer_url.startswith("http://") and not provider.public_keys_file:
                yield f"providers::{number}::issuer_url", "has no TLS: whoever is in between can replace the keys"
