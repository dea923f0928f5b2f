"""Sets headers of exporters' requests. Source: the Collector's headerssetterextension."""

from collections.abc import Callable, Collection, Mapping

from collector.api import Extension, Host, PermanentError, Settings
from collector.transport.auth import SENT_CONTEXT, ClientAuthenticator, HeaderChanger, find_client_authenticator
from collector.transport.credentials_file import CredentialsFile
from config.blocks import AuthConfig
from extensions.headers_setter.config import HeaderConfig, HeadersSetterConfig

__all__ = ["HeadersSetter"]


class HeadersSetter(Extension):
    """Clients ask for the changes of each request, while the context of the batch that they send is set."""

    def __init__(self, settings: Settings, config: HeadersSetterConfig) -> None:
        self._key = f"extensions::{settings.id}"
        self._config = config
        self._files: list[CredentialsFile] = []
        self._inner: ClientAuthenticator | None = None
        self._headers = [
            (header.action, header.key.lower(), self._source(settings, header, position))
            for position, header in enumerate(config.headers)
        ]

    async def start(self, host: Host) -> None:
        """Read the files and find the additional authenticator."""
        for file in self._files:
            file.open()
        if self._config.additional_auth:
            auth = AuthConfig(authenticator=self._config.additional_auth)
            self._inner = find_client_authenticator(host, auth, f"{self._key}::additional_auth")

    def client_headers(self) -> Mapping[str, str]:
        """The headers to add to a request of which nothing else is known, as in gRPC."""
        return {name: value for name, value in self.header_changes(()).items() if value is not None}

    def header_changes(self, present: Collection[str]) -> Mapping[str, str | None]:
        """See :class:`collector.transport.auth.HeaderChanger`.

        Raises:
            PermanentError: the request that brought the data has a header more than once.
        """
        changes: dict[str, str | None] = {}
        if isinstance(self._inner, HeaderChanger):
            changes |= self._inner.header_changes(present)
        elif self._inner is not None:
            changes |= {name.lower(): value for name, value in self._inner.client_headers().items()}
        for action, name, source in self._headers:
            is_present = changes[name] is not None if name in changes else name in present
            if action == "delete":
                changes[name] = None
            elif action == "upsert" or is_present == (action == "update"):
                value = source()
                if value:  # nothing known: the header stays as it is
                    changes[name] = value
        return changes

    def _source(self, settings: Settings, header: HeaderConfig, position: int) -> Callable[[], str]:
        default = header.default_value.get_secret_value()
        if header.value_file:
            key = f"{self._key}::headers::{position}::value_file"
            file = CredentialsFile(
                header.value_file, str.strip, key=key, clock=settings.clock, log=settings.telemetry.log
            )
            self._files.append(file)
            return file.value
        if header.from_context:
            return lambda: _from_metadata(header.from_context.lower()) or default
        if header.from_attribute:
            return lambda: dict(SENT_CONTEXT.get().claims).get(header.from_attribute) or default
        value = header.value.get_secret_value() if header.value is not None else ""
        return lambda: value


def _from_metadata(name: str) -> str:
    values = dict(SENT_CONTEXT.get().metadata).get(name, ())
    if len(values) > 1:
        raise PermanentError(
            f"the data came with {len(values)} headers {name!r}; which one to use is not known",
            reason="ambiguous_header",
        )
    return values[0] if values else ""
