"""The reference to an authenticating extension. Source: open-telemetry/opentelemetry-collector config/configauth."""

from typing import ClassVar

from config.blocks.base import ComponentConfig

__all__ = ["AuthConfig"]


class AuthConfig(ComponentConfig):
    """Names the extension that authenticates clients, or that provides a client's credentials."""

    null_means_default: ClassVar[bool] = False
    extension_keys: ClassVar[tuple[str, ...]] = ("authenticator",)

    authenticator: str
    """Id of the extension; it must be listed in service::extensions."""
