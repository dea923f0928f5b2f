"""Settings of gRPC clients and servers. Source: open-telemetry/opentelemetry-collector config/configgrpc."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from config.blocks.auth import AuthConfig
from config.blocks.base import ComponentConfig, OutdatedKey
from config.blocks.headers import check_grpc_metadata
from config.blocks.tls import OUTDATED_CLIENT_KEYS, OUTDATED_SERVER_KEYS, TLSClientConfig, TLSServerConfig
from config.blocks.values import ByteSize, Duration, Secret

__all__ = [
    "GRPCClientConfig",
    "GRPCServerConfig",
    "KeepaliveClientConfig",
    "KeepaliveEnforcementPolicy",
    "KeepaliveServerConfig",
    "KeepaliveServerParameters",
]


class KeepaliveClientConfig(ComponentConfig):
    """Keepalive pings of a gRPC client."""

    null_means_default: ClassVar[bool] = False

    time: Duration = 10.0
    """Send a ping after receiving nothing for this long. Values below 10s mean 10s."""
    timeout: Duration = 10.0
    """Close the connection if a ping is not answered within this time."""
    permit_without_stream: bool = False
    """Send pings even while no call is in progress."""


class KeepaliveServerParameters(ComponentConfig):
    """Keepalive pings and connection lifetimes of a gRPC server."""

    max_connection_idle: Duration = 0.0
    """Close a connection that has had no call for this long. 0: never."""
    max_connection_age: Duration = 0.0
    """Close a connection after this time, so that clients spread over newly added servers. 0: never."""
    max_connection_age_grace: Duration = 0.0
    """How long calls may take to finish once max_connection_age has passed. 0: without limit."""
    time: Duration = 7200.0
    """Send a ping to a client that has sent nothing for this long."""
    timeout: Duration = 20.0
    """Close the connection if a ping is not answered within this time."""


class KeepaliveEnforcementPolicy(ComponentConfig):
    """How many keepalive pings a gRPC server tolerates."""

    min_time: Duration = 300.0
    """Disconnect clients that send pings more often than this."""
    permit_without_stream: bool = False
    """Let clients send pings while they have no call in progress."""


class KeepaliveServerConfig(ComponentConfig):
    """Keepalive settings of a gRPC server."""

    null_means_default: ClassVar[bool] = False

    server_parameters: KeepaliveServerParameters = KeepaliveServerParameters()
    """Pings that the server sends, and lifetimes of connections."""
    enforcement_policy: KeepaliveEnforcementPolicy = KeepaliveEnforcementPolicy()
    """Pings that the server tolerates."""


class GRPCClientConfig(ComponentConfig):
    """Settings of a gRPC client."""

    outdated_keys: ClassVar[Mapping[str, OutdatedKey]] = OUTDATED_CLIENT_KEYS

    endpoint: str = ""
    """Server to connect to, for example localhost:4317, dns:///backend:4317 or unix:/run/backend.sock."""
    transport: Literal["http2", "grpcio"] = "http2"
    """HTTP/2 library (specific to Tailrace): http2 is libnghttp2, grpcio is Google's (only gzip, fewer TLS keys)."""
    compression: Literal["", "none", "gzip", "zstd", "snappy"] = "gzip"
    """Compression of requests. Empty or none: not compressed."""
    tls: TLSClientConfig = TLSClientConfig()
    """TLS settings."""
    keepalive: KeepaliveClientConfig | None = None
    """Keepalive pings. Absent: no pings are sent."""
    read_buffer_size: ByteSize = 0
    """Accepted for compatibility with the Collector; has no effect."""
    write_buffer_size: ByteSize = 512 * 1024
    """Bytes that may wait for the socket before calls are held back. Has no effect with transport grpcio."""
    wait_for_ready: bool = False
    """Let a call wait for a connection instead of failing at once."""
    headers: dict[str, Secret] = Field(default_factory=dict)
    """Metadata to add to every call. The values are treated as secrets."""
    balancer_name: Literal["", "round_robin", "pick_first"] = "round_robin"
    """How calls are spread over the addresses of the endpoint. Empty: pick_first."""
    authority: str = ""
    """Value of the :authority header. Empty: derived from the endpoint."""
    auth: AuthConfig | None = None
    """Extension that provides credentials. Absent: none are sent."""
    user_agent: str = ""
    """Value of the user-agent header. Empty: Tailrace and its version."""

    @field_validator("headers")
    @classmethod
    def _can_be_sent(cls, headers: dict[str, Secret]) -> dict[str, Secret]:
        check_grpc_metadata(headers)
        return headers

    @field_validator("authority", "user_agent")
    @classmethod
    def _is_printable_ascii(cls, text: str) -> str:
        if not (text.isascii() and text.isprintable()):
            raise ValueError(f"{text!r} is not printable ASCII; write a host name with other letters in its xn-- form")
        return text


class GRPCServerConfig(ComponentConfig):
    """Settings of a gRPC server."""

    outdated_keys: ClassVar[Mapping[str, OutdatedKey]] = OUTDATED_SERVER_KEYS

    endpoint: str = "localhost:4317"
    """Address to listen on, as host:port, or a socket path if transport is unix."""
    transport: Literal["tcp", "unix", "grpcio"] = "tcp"
    """Kind of listener. grpcio (specific to Tailrace): the server of the gRPC library, on TCP or a Unix socket."""
    tls: TLSServerConfig | None = None
    """TLS settings. Absent: plaintext."""
    max_recv_msg_size_mib: int = Field(default=0, ge=0)
    """Largest request in MiB, both as sent and decompressed. 0: 64 MiB, as OTLP recommends."""
    max_concurrent_streams: int = Field(default=0, ge=0)
    """Calls that may be in progress on one connection. 0: 10 000."""
    read_buffer_size: ByteSize = 512 * 1024
    """Accepted for compatibility with the Collector; all connections share one buffer."""
    write_buffer_size: ByteSize = 0
    """Unsent bytes from which on no more requests are read from a connection. 0: 64 KiB."""
    keepalive: KeepaliveServerConfig | None = None
    """Keepalive settings. Absent: the defaults."""
    include_metadata: bool = False
    """Keep the metadata of each call with the data, for processors and exporters that use it."""
    auth: AuthConfig | None = None
    """Extension that authenticates clients. Absent: clients are not authenticated."""
