"""Configuration: what the user writes, parsed once into frozen models.

``blocks``   the shared pieces every component's configuration is made of, with the Collector's keys and defaults
``yaml``     text to nodes that know their place, as go-yaml v3 reads it
``resolve``  several sources to one document: merge, references, ``--set``
``explain``  a node to a typed configuration, or findings with a place
``model``    the service's own part, and the whole configuration
``graph``    what pipelines may hold
``load``     all of it together: ``load(sources, sets, registry)``
``dump``     the other way: a configuration to YAML, secrets redacted
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
from config.errors import ConfigError, ConfigErrors
from config.load import Examination, examine, load
from config.model import Config, ConfiguredComponent, Pipeline, ServiceConfig, TelemetryConfig

__all__ = [
    "ByteSize",
    "CORSConfig",
    "ComponentConfig",
    "Config",
    "ConfigError",
    "ConfigErrors",
    "ConfiguredComponent",
    "Duration",
    "Examination",
    "GRPCClientConfig",
    "GRPCServerConfig",
    "HTTPClientConfig",
    "HTTPServerConfig",
    "KeepaliveClientConfig",
    "KeepaliveServerConfig",
    "Pipeline",
    "QueueBatchConfig",
    "QueueConfig",
    "RetryConfig",
    "Secret",
    "ServiceConfig",
    "TLSClientConfig",
    "TLSServerConfig",
    "TelemetryConfig",
    "examine",
    "load",
]
