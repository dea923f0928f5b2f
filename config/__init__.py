"""Configuration: what the user writes, parsed once into frozen models.

``blocks``       the shared parts of component configuration, with the Collector's keys and defaults
``load``         everything together: ``load(sources, sets, registry)``
``yaml``         text to nodes with file, line and column, read as go-yaml v3 reads it
``resolve``      several sources to one document: merging, ``--set``
``references``   ``${env:X}`` and its kin in values
``validation``   a node to a typed configuration, or to findings
``explain``      pydantic's error details to findings in plain words
``annotations``  what the type annotations of a model say about its keys
``service``      the section ``service``, with every reference to a component checked
``graph``        what pipelines may contain
``missing``      what remains of a configuration without the components that do not exist here
``errors``       findings with their places
``refusals``     what a component raises while it is made, as findings
``model``        the service's own models, and the whole configuration
``dump``         the other direction: a configuration to YAML, secrets redacted
``schema``       JSON Schema of the configuration, for editors
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
    OutdatedKey,
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
    "OutdatedKey",
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
