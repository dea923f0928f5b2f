"""Settings of HTTP clients and servers. Source: open-telemetry/opentelemetry-collector config/confighttp."""

from collections.abc import Mapping
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from config.blocks.auth import AuthConfig
from config.blocks.base import ComponentConfig, InvalidSettings, OutdatedKey
from config.blocks.headers import check_header_names, check_request_headers, check_response_headers
from config.blocks.tls import OUTDATED_CLIENT_KEYS, OUTDATED_SERVER_KEYS, TLSClientConfig, TLSServerConfig
from config.blocks.values import ByteSize, Duration, Secret

__all__ = ["CORSConfig", "HTTPClientConfig", "HTTPServerConfig", "check_url", "proxy_with_scheme"]


class HTTPClientConfig(ComponentConfig):
    """Settings of an HTTP client."""

    outdated_keys: ClassVar[Mapping[str, OutdatedKey]] = OUTDATED_CLIENT_KEYS
    reserved_headers: ClassVar[frozenset[str]] = frozenset()
    """Names, in lower case, that ``headers`` must not have, because the component's protocol sets them itself."""

    endpoint: str = ""
    """URL of the server, for example http://localhost:4318."""
    proxy_url: str = ""
    """URL of a proxy. Empty: from the variables HTTPS_PROXY, HTTP_PROXY and NO_PROXY, never for loopback addresses."""
    tls: TLSClientConfig = TLSClientConfig()
    """TLS settings, for URLs with the scheme https."""
    timeout: Duration = 30.0
    """Timeout of one attempt. 0: no timeout."""
    headers: dict[str, Secret] = Field(default_factory=dict)
    """Headers to add to every request. The values are treated as secrets."""
    compression: Literal["", "none", "gzip", "zstd", "snappy", "deflate", "zlib", "lz4"] = "gzip"
    """Compression of request bodies. Empty or none: not compressed."""
    compression_params: dict[str, int] = Field(default_factory=dict)
    """Parameters of the compression. The only one is level, the compression level."""
    max_idle_conns: int = Field(default=100, ge=0)
    """Accepted for compatibility with the Collector; has no effect."""
    max_idle_conns_per_host: int = Field(default=0, ge=0)
    """Accepted for compatibility with the Collector; has no effect."""
    max_conns_per_host: int = Field(default=0, ge=0)
    """Connections that may be open to one host. 0: no limit."""
    idle_conn_timeout: Duration = 90.0
    """Close a connection that has been idle for this long."""
    disable_keep_alives: bool = False
    """Open a new connection for every request."""
    http2_read_idle_timeout: Duration = 0.0
    """Accepted for compatibility with the Collector; has no effect, since the client uses HTTP/1.1."""
    http2_ping_timeout: Duration = 15.0
    """Accepted for compatibility with the Collector; has no effect, since the client uses HTTP/1.1."""
    force_attempt_http2: bool = True
    """Accepted for compatibility with the Collector; has no effect, since the client uses HTTP/1.1."""
    auth: AuthConfig | None = None
    """Extension that provides credentials. Absent: none are sent."""
    read_buffer_size: ByteSize = 0
    """Accepted for compatibility with the Collector; has no effect."""
    write_buffer_size: ByteSize = 0
    """Accepted for compatibility with the Collector; has no effect."""

    @field_validator("endpoint")
    @classmethod
    def _is_url(cls, value: str) -> str:
        return check_url(value)

    @field_validator("proxy_url")
    @classmethod
    def _is_proxy(cls, value: str) -> str:
        if value:
            proxy_with_scheme(value, "the value")
        return value

    @field_validator("headers")
    @classmethod
    def _can_be_sent(cls, headers: dict[str, Secret]) -> dict[str, Secret]:
        check_request_headers(headers, cls.reserved_headers)
        return headers

    @field_validator("compression_params")
    @classmethod
    def _are_known(cls, parameters: dict[str, int]) -> dict[str, int]:
        if unknown := [
            ((key,), f"unknown key {key!r}; the only allowed key is level") for key in parameters if key != "level"
        ]:
            raise InvalidSettings(*unknown)
        return parameters


def check_url(url: str) -> str:
    """The URL of a server, or an empty text.

    Raises:
        ValueError: it is not valid. The message does not show it, because it may contain a password.
    """
    if url and not _is_http(url):
        raise ValueError(
            "the value must be a URL with http:// or https:// and a valid host, for example http://localhost:4318"
        )
    return url


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def proxy_with_scheme(url: str, source: str) -> str:
    """The URL of a proxy; without a scheme it is http, as for curl and Go.

    Raises:
        ValueError: it cannot be used; the message begins with ``source`` and shows no credentials.
    """
    url = url if "://" in url else f"http://{url}"
    if not _is_http(url):
        raise ValueError(
            f"{source} is not a valid HTTP proxy: expected http://host:port or https://host:port; "
            "other kinds of proxies are not supported"
        )
    return url


class CORSConfig(ComponentConfig):
    """Cross-origin requests from web pages. If absent or without origins, OPTIONS requests are answered with 405."""

    null_means_default: ClassVar[bool] = False

    allowed_origins: tuple[str, ...] = ()
    """Origins of web pages that may send requests. Each may contain one *, which matches anything."""
    allowed_headers: tuple[str, ...] = ()
    """Headers that are allowed in addition to Accept, Content-Type and X-Requested-With. * allows any."""
    exposed_headers: tuple[str, ...] = ()
    """Response headers that scripts of the page may read."""
    max_age: int = Field(default=0, ge=0)
    """Seconds for which a browser may cache the answer to a preflight request. 0: not specified."""

    @field_validator("allowed_headers", "exposed_headers")
    @classmethod
    def _are_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        check_header_names(names)
        return names


class HTTPServerConfig(ComponentConfig):
    """Settings of an HTTP server."""

    outdated_keys: ClassVar[Mapping[str, OutdatedKey]] = {
        **OUTDATED_SERVER_KEYS,
        "cors_allowed_origins": OutdatedKey("cors::allowed_origins"),
        "cors_allowed_headers": OutdatedKey("cors::allowed_headers"),
    }

    endpoint: str = "localhost:4318"
    """Address to listen on, as host:port, or a socket path if transport is unix."""
    transport: Literal["tcp", "unix"] = "tcp"
    """Whether the endpoint is a host and port (tcp) or a Unix socket (unix)."""
    tls: TLSServerConfig | None = None
    """TLS settings. Absent: plaintext."""
    cors: CORSConfig | None = None
    """Cross-origin requests. Absent: they are not allowed."""
    auth: AuthConfig | None = None
    """Extension that authenticates clients. Absent: clients are not authenticated."""
    max_request_body_size: ByteSize = 20 * 1024 * 1024
    """Largest request body in bytes, both as sent and decompressed."""
    include_metadata: bool = False
    """Keep the headers of each request with the data, for processors and exporters that use them."""
    response_headers: dict[str, Secret] = Field(default_factory=dict)
    """Headers to add to every response."""
    compression_algorithms: tuple[Literal["", "gzip", "zstd", "zlib", "snappy", "deflate", "lz4"], ...] = (
        "", "gzip", "zstd", "zlib", "snappy", "deflate", "lz4",
    )  # fmt: skip
    """Accepted encodings of request bodies. The empty string stands for bodies that are not compressed."""
    read_timeout: Duration = 0.0
    """Time in which a request body must arrive. 0: no limit, but a body that stalls for 60 s is answered with 408."""
    read_header_timeout: Duration = 0.0
    """Time in which the head of a request must arrive. 0: read_timeout, or one minute if that is 0 as well."""
    write_timeout: Duration = 0.0
    """Time in which the client must accept its responses. 0: one minute."""
    idle_timeout: Duration = 0.0
    """Close a connection that has been idle for this long. 0: read_timeout, or about an hour if that is 0 as well."""
    keep_alives_enabled: bool = True
    """Keep connections open for further requests. false: one request per connection."""

    @field_validator("response_headers")
    @classmethod
    def _can_be_sent(cls, headers: dict[str, Secret]) -> dict[str, Secret]:
        check_response_headers(headers)
        return headers
