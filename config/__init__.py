"""Configuration: what the user writes, parsed once into frozen models.

``blocks``  the shared pieces every component's configuration is made of, with the Collector's keys and defaults
"""

from config.blocks import (
    ByteSize,
    ComponentConfig,
    CORSConfig,
    Duration,
    GRPCClientConfig,
    GRPCServerConfig,
    HTTPClientConfig,
    HTTPServerConfig,
    KeepaliveClientConfig,
    KeepaliveServerConfig,
    QueueBatchConfig,
    QueueConfig,
    RetryConfig,
    Secret,
    TLSClientConfig,
    TLSServerConfig,
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
