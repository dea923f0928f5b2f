"""The shared pieces of component configuration: the Collector's keys, defaults and value forms.

Source: open-telemetry/opentelemetry-collector config/{configgrpc,confighttp,configtls,configretry},
    exporter/exporterhelper.
"""

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    WithJsonSchema,
    model_validator,
)

__all__ = [
    "ByteSize",
    "CORSConfig",
    "ComponentConfig",
    "Duration",
    "GRPCClientConfig",
    "GRPCServerConfig",
    "HTTPClientConfig",
    "HTTPServerConfig",
    "KeepaliveClientConfig",
    "KeepaliveServerConfig",
    "QueueBatchConfig",
    "QueueConfig",
    "RetryConfig",
    "Secret",
    "TLSClientConfig",
    "TLSServerConfig",
]

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_DURATION_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE = re.compile(r"^([0-9]+(?:\.[0-9]+)?)\s*([KMGT]i?B|B)?$")
_SIZE_UNIT = {None: 1, "B": 1} | {
    f"{p}{i}B": (1024 if i else 1000) ** n for n, p in enumerate("KMGT", 1) for i in ("", "i")
}


def _duration_s(value: object) -> object:
    """Seconds from Go's duration form (``1h30m``, ``500ms``, ``0``)."""
    if value == 0 and not isinstance(value, bool):
        return 0.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"a duration needs a unit: write {value}s or {value}ms")  # noqa: TRY004 - pydantic collects ValueError
    if not isinstance(value, str):
        raise ValueError("a duration such as 500ms, 10s, 1m30s")  # noqa: TRY004 - pydantic collects ValueError
    text = value.strip()
    if text == "0":
        return 0.0
    sign, body = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    parts = _DURATION.findall(body)
    if not parts or "".join(number + unit for number, unit in parts) != body:
        raise ValueError(f"{value!r} is no duration: write for example 500ms, 10s, 1m30s, 1h")
    return sign * sum(float(number) * _DURATION_UNIT_S[unit] for number, unit in parts)


def _duration_text(seconds: float) -> str:
    """The shortest Go form of ``seconds``."""
    for unit, scale in (("h", 3600.0), ("m", 60.0), ("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds and seconds / scale == int(seconds / scale):
            return f"{int(seconds / scale)}{unit}"
    return f"{seconds:g}s"


def _size_bytes(value: object) -> object:
    """Bytes from ``256MiB``, ``10MB``, ``4096``."""
    if isinstance(value, str):
        match = _SIZE.match(value.strip())
        if not match:
            raise ValueError(f"{value!r} is no size: write for example 4096, 64KiB, 256MiB, 1GiB")
        return int(float(match[1]) * _SIZE_UNIT[match[2]])
    return value


DURATION_PATTERN = r"^([-+]?([0-9]*\.?[0-9]+(ns|us|µs|ms|s|m|h))+|0)$"

Duration = Annotated[
    float,
    BeforeValidator(_duration_s),
    PlainSerializer(_duration_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN}),
]
"""Seconds; written as Go durations."""
ByteSize = Annotated[
    int,
    BeforeValidator(_size_bytes),
    Field(ge=0),
    WithJsonSchema({"type": ["integer", "string"], "minimum": 0, "pattern": r"^([0-9.]+\s*([KMGT]i?B|B)?|.*\$\{.+)$"}),
]
"""Bytes; written as a number or with a unit."""


class Secret(SecretStr):
    """A string that prints as ``[REDACTED]`` everywhere; ``get_secret_value()`` for use."""

    def _display(self) -> str:
        return "[REDACTED]"


class ComponentConfig(BaseModel):
    """Base of every configuration: frozen, unknown keys refused, no weak casts. Its defaults are the component's defaults."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=False,
        validate_default=False,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    null_means_default: ClassVar[bool] = True
    """A bare key (``grpc:``) where this may stand switches it on with its defaults; False: it stays as if not written."""


class TLSClientConfig(ComponentConfig):
    """configtls, client side."""

    null_means_default: ClassVar[bool] = False

    insecure: bool = False
    """No TLS at all (gRPC; HTTP decides by the URL's scheme)."""
    insecure_skip_verify: bool = False
    server_name_override: str = ""
    ca_file: str = ""
    ca_pem: Secret = Secret("")
    cert_file: str = ""
    cert_pem: Secret = Secret("")
    key_file: str = ""
    key_pem: Secret = Secret("")
    include_system_ca_certs_pool: bool = False
    min_version: Literal["", "1.0", "1.1", "1.2", "1.3"] = "1.2"
    max_version: Literal["", "1.0", "1.1", "1.2", "1.3"] = ""
    cipher_suites: tuple[str, ...] = ()
    curve_preferences: tuple[str, ...] = ()
    reload_interval: Duration = 0.0


class TLSServerConfig(ComponentConfig):
    """configtls, server side."""

    null_means_default: ClassVar[bool] = False

    cert_file: str = ""
    cert_pem: Secret = Secret("")
    key_file: str = ""
    key_pem: Secret = Secret("")
    ca_file: str = ""
    client_ca_file: str = ""
    """Set: clients must show a certificate signed by it (mTLS)."""
    client_ca_file_reload: bool = False
    min_version: Literal["", "1.0", "1.1", "1.2", "1.3"] = "1.2"
    max_version: Literal["", "1.0", "1.1", "1.2", "1.3"] = ""
    cipher_suites: tuple[str, ...] = ()
    curve_preferences: tuple[str, ...] = ()
    reload_interval: Duration = 0.0


class RetryConfig(ComponentConfig):
    """configretry.BackOffConfig."""

    enabled: bool = True
    initial_interval: Duration = 5.0
    randomization_factor: float = Field(default=0.5, ge=0, le=1)
    multiplier: float = Field(default=1.5, ge=0)
    max_interval: Duration = 30.0
    max_elapsed_time: Duration = 300.0
    """0: retry for ever."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.enabled and self.max_elapsed_time > 0:
            for name in ("initial_interval", "max_interval"):
                if getattr(self, name) > self.max_elapsed_time:
                    raise ValueError(f"max_elapsed_time must not be less than {name}")
        return self


class QueueBatchConfig(ComponentConfig):
    """exporterhelper ``sending_queue.batch``."""

    flush_timeout: Duration = Field(default=0.2, gt=0)
    min_size: int = Field(default=8192, ge=0)
    max_size: int = Field(default=0, ge=0)
    sizer: Literal["", "items", "bytes"] = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_size and self.max_size < self.min_size:
            raise ValueError("max_size must not be less than min_size")
        return self


class QueueConfig(ComponentConfig):
    """exporterhelper ``sending_queue``, and a bound in bytes of ours."""

    enabled: bool = True
    num_consumers: int = Field(default=10, ge=1)
    queue_size: int = Field(default=1000, ge=1)
    """In units of ``sizer``."""
    sizer: Literal["requests", "items", "bytes"] = "requests"
    max_bytes: ByteSize = 256 * 1024 * 1024
    """Ours: the queue is full at this many bytes whatever the sizer says; 0: no such bound."""
    block_on_overflow: bool = False
    wait_for_result: bool = False
    storage: str = ""
    batch: QueueBatchConfig | None = None

    @property
    def batch_sizer(self) -> Literal["items", "bytes"]:
        """What ``batch`` counts: its own sizer, else the queue's where that was written, else items."""
        if self.batch is not None and self.batch.sizer:
            return self.batch.sizer
        return "bytes" if "sizer" in self.model_fields_set and self.sizer == "bytes" else "items"


class KeepaliveClientConfig(ComponentConfig):
    """configgrpc keepalive, client side."""

    null_means_default: ClassVar[bool] = False

    time: Duration = 10.0
    timeout: Duration = 10.0
    permit_without_stream: bool = False


class KeepaliveServerParameters(ComponentConfig):
    """configgrpc keepalive.server_parameters; 0 = no bound."""

    max_connection_idle: Duration = 0.0
    max_connection_age: Duration = 0.0
    max_connection_age_grace: Duration = 0.0
    time: Duration = 7200.0
    timeout: Duration = 20.0


class KeepaliveEnforcementPolicy(ComponentConfig):
    """configgrpc keepalive.enforcement_policy."""

    min_time: Duration = 300.0
    permit_without_stream: bool = False


class KeepaliveServerConfig(ComponentConfig):
    """configgrpc keepalive, server side."""

    null_means_default: ClassVar[bool] = False

    server_parameters: KeepaliveServerParameters = KeepaliveServerParameters()
    enforcement_policy: KeepaliveEnforcementPolicy = KeepaliveEnforcementPolicy()


class AuthConfig(ComponentConfig):
    """Which extension authenticates."""

    null_means_default: ClassVar[bool] = False

    authenticator: str


class GRPCClientConfig(ComponentConfig):
    """configgrpc.ClientConfig."""

    endpoint: str = ""
    transport: Literal["http2", "grpcio"] = "http2"
    """Ours: who speaks HTTP/2. ``http2``: libnghttp2 on our event loop; ``grpcio``: Google's library (gzip only, fewer TLS keys)."""
    compression: Literal["", "none", "gzip", "zstd", "snappy"] = "gzip"
    tls: TLSClientConfig = TLSClientConfig()
    keepalive: KeepaliveClientConfig | None = None
    read_buffer_size: ByteSize = 0
    write_buffer_size: ByteSize = 512 * 1024
    wait_for_ready: bool = False
    headers: dict[str, Secret] = Field(default_factory=dict)
    balancer_name: Literal["", "round_robin", "pick_first"] = "round_robin"
    authority: str = ""
    auth: AuthConfig | None = None
    user_agent: str = ""


class GRPCServerConfig(ComponentConfig):
    """configgrpc.ServerConfig."""

    endpoint: str = "localhost:4317"
    transport: Literal["tcp", "unix", "grpcio"] = "tcp"
    """Ours: ``grpcio``, the gRPC library for Python instead of our own server, on a TCP or Unix ``endpoint``."""
    tls: TLSServerConfig | None = None
    max_recv_msg_size_mib: int = Field(default=0, ge=0)
    """0: 4 MiB, gRPC's own default."""
    max_concurrent_streams: int = Field(default=0, ge=0)
    read_buffer_size: ByteSize = 512 * 1024
    write_buffer_size: ByteSize = 0
    keepalive: KeepaliveServerConfig | None = None
    include_metadata: bool = False
    auth: AuthConfig | None = None


class CORSConfig(ComponentConfig):
    """confighttp.CORSConfig; absent or without origins: OPTIONS is answered 405."""

    null_means_default: ClassVar[bool] = False

    allowed_origins: tuple[str, ...] = ()
    allowed_headers: tuple[str, ...] = ()
    exposed_headers: tuple[str, ...] = ()
    max_age: int = Field(default=0, ge=0)


class HTTPClientConfig(ComponentConfig):
    """confighttp.ClientConfig."""

    endpoint: str = ""
    proxy_url: str = ""
    tls: TLSClientConfig = TLSClientConfig()
    timeout: Duration = 30.0
    headers: dict[str, Secret] = Field(default_factory=dict)
    compression: Literal["", "none", "gzip", "zstd", "snappy", "deflate", "zlib", "lz4"] = "gzip"
    compression_params: dict[str, int] = Field(default_factory=dict)
    max_idle_conns: int = Field(default=100, ge=0)
    max_idle_conns_per_host: int = Field(default=0, ge=0)
    max_conns_per_host: int = Field(default=0, ge=0)
    idle_conn_timeout: Duration = 90.0
    disable_keep_alives: bool = False
    http2_read_idle_timeout: Duration = 0.0
    http2_ping_timeout: Duration = 15.0
    force_attempt_http2: bool = True
    auth: AuthConfig | None = None
    read_buffer_size: ByteSize = 0
    write_buffer_size: ByteSize = 0


class HTTPServerConfig(ComponentConfig):
    """confighttp.ServerConfig."""

    endpoint: str = "localhost:4318"
    tls: TLSServerConfig | None = None
    cors: CORSConfig | None = None
    auth: AuthConfig | None = None
    max_request_body_size: ByteSize = 20 * 1024 * 1024
    """After decompression."""
    include_metadata: bool = False
    response_headers: dict[str, Secret] = Field(default_factory=dict)
    compression_algorithms: tuple[Literal["", "gzip", "zstd", "zlib", "snappy", "deflate", "lz4"], ...] = (
        "", "gzip", "zstd", "zlib", "snappy", "deflate", "lz4",
    )  # fmt: skip
    read_timeout: Duration = 0.0
    read_header_timeout: Duration = 0.0
    write_timeout: Duration = 0.0
    idle_timeout: Duration = 0.0
    keep_alives_enabled: bool = True
