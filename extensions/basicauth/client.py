"""Provides clients with the header ``authorization: Basic …``. Source: RFC 7617."""

import base64
from collections.abc import Mapping

from collector.api import Extension, Host, Settings
from collector.transport.credentials_file import CredentialsFile
from extensions.basicauth.config import ClientAuthConfig

__all__ = ["BasicAuthClient"]


class BasicAuthClient(Extension):
    """Clients call :meth:`client_headers` for each request."""

    def __init__(self, settings: Settings, config: ClientAuthConfig) -> None:
        self._config = config
        self._files: dict[str, CredentialsFile] = {}
        for name, path in (("username", config.username_file), ("password", config.password_file)):
            if path:
                self._files[name] = CredentialsFile(
                    path,
                    _first_line,
                    key=f"extensions::{settings.id}::client_auth::{name}_file",
                    clock=settings.clock,
                    log=settings.telemetry.log,
                )

    async def start(self, host: Host) -> None:  # noqa: ARG002 - needs nothing of it
        """Read the files."""
        for file in self._files.values():
            file.open()

    def client_headers(self) -> Mapping[str, str]:
        """The credentials, as configured or as they are in the files."""
        username = self._files["username"].value() if "username" in self._files else self._config.username
        password = (
            self._files["password"].value() if "password" in self._files else self._config.password.get_secret_value()
        )
        credentials = base64.b64encode(f"{username}:{password}".encode()).decode()
        return {"authorization": f"Basic {credentials}"}


def _first_line(text: str) -> str:
    """The text without the line break that editors add."""
    return text.rstrip("\r\n")
