"""Configuration of ``basicauth``. Source: opentelemetry-collector-contrib extension/basicauthextension config.go."""

from typing import ClassVar, Self

from pydantic import model_validator

from config.blocks import ComponentConfig, Secret

__all__ = ["BasicAuthConfig", "ClientAuthConfig", "HtpasswdConfig"]


class HtpasswdConfig(ComponentConfig):
    """Who may use the servers that name this extension."""

    null_means_default: ClassVar[bool] = False

    file: str = ""
    """Path of an htpasswd file. It is read again when it changes."""
    inline: Secret = Secret("")
    """The content of an htpasswd file. Its users take precedence over those of the file."""


class ClientAuthConfig(ComponentConfig):
    """As whom the clients that name this extension authenticate."""

    null_means_default: ClassVar[bool] = False

    username: str = ""
    """Name of the user."""
    password: Secret = Secret("")
    """Password of the user."""
    username_file: str = ""
    """File with the name of the user, instead of username. It is read again when it changes."""
    password_file: str = ""
    """File with the password, instead of password. It is read again when it changes."""

    @model_validator(mode="after")
    def _is_usable(self) -> Self:
        if ":" in self.username:
            raise ValueError("username must not contain a colon, which separates it from the password")
        return self


class BasicAuthConfig(ComponentConfig):
    """Basic authentication, for servers (``htpasswd``) or for clients (``client_auth``)."""

    htpasswd: HtpasswdConfig | None = None
    """Who may use the servers that name this extension."""
    client_auth: ClientAuthConfig | None = None
    """As whom the clients that name this extension authenticate."""

    @model_validator(mode="after")
    def _has_one_side(self) -> Self:
        if self.htpasswd is not None and self.client_auth is not None:
            raise ValueError(
                "only one of htpasswd and client_auth may be set; configure two extensions, for example "
                "basicauth/server and basicauth/client"
            )
        if self.htpasswd is None and self.client_auth is None:
            raise ValueError("htpasswd or client_auth is required")
        if self.htpasswd is not None and not (self.htpasswd.file or self.htpasswd.inline.get_secret_value()):
            raise ValueError("htpasswd: file or inline is required")
        return self
