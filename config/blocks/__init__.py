"""The shared blocks of component configuration: the Collector's keys, defaults and value forms.

Component authors build their ``config.py`` from these. The docstring of a key is user documentation: it becomes the
description of that key in the JSON Schema (``tailrace schema``).

``base``      the base class of every configuration
``values``    durations, sizes in bytes, secrets
``tls``       certificates and TLS versions of clients and servers
``headers``   names and values of configured headers
``auth``      the reference to an authenticating extension
``grpc``      gRPC clients and servers
``http``      HTTP clients and servers
``delivery``  queue, batching, retries, circuit breaker and dead letters of exporters
"""

from config.blocks.auth import AuthConfig
from config.blocks.base import ComponentConfig, InvalidSettings, OutdatedKey
from config.blocks.delivery import (
    AdaptiveConcurrencyConfig,
    CircuitBreakerConfig,
    DeadLetterConfig,
    QueueBatchConfig,
    QueueConfig,
    RetryConfig,
)
from config.blocks.grpc import GRPCClientConfig, GRPCServerConfig, KeepaliveClientConfig, KeepaliveServerConfig
from config.blocks.http import CORSConfig, HTTPClientConfig, HTTPServerConfig
from config.blocks.tls import TLSClientConfig, TLSServerConfig
from config.blocks.values import ByteSize, Duration, Secret

__all__ = [
    "AdaptiveConcurrencyConfig",
    "AuthConfig",
    "ByteSize",
    "CORSConfig",
    "CircuitBreakerConfig",
    "ComponentConfig",
    "DeadLetterConfig",
    "Duration",
    "GRPCClientConfig",
    "GRPCServerConfig",
    "HTTPClientConfig",
    "HTTPServerConfig",
    "InvalidSettings",
    "KeepaliveClientConfig",
    "KeepaliveServerConfig",
    "OutdatedKey",
    "QueueBatchConfig",
    "QueueConfig",
    "RetryConfig",
    "Secret",
    "TLSClientConfig",
    "TLSServerConfig",
]
