"""Every key that is accepted is read somewhere; those without effect are listed here, and say so."""

import ast
from functools import cache
from pathlib import Path

from pydantic import BaseModel

from collector.api import ComponentKind
from collector.registry import Registry
from config.annotations import models_among, union_members
from config.model import TelemetryConfig

ROOT = Path(__file__).parents[3]
SOURCES = ("collector", "config", "receivers", "processors", "exporters", "connectors", "extensions")
COMPONENTS = SOURCES[2:]
WITHOUT_EFFECT = frozenset(
    [
        "CompactionConfig.check_interval",
        "CompactionConfig.cleanup_on_start",
        "CompactionConfig.directory",
        "CompactionConfig.max_transaction_size",
        "CompactionConfig.on_rebound",
        "CompactionConfig.on_start",
        "CompactionConfig.rebound_needed_threshold_mib",
        "CompactionConfig.rebound_trigger_threshold_mib",
        "CompositeConfig.policy_order",
        "DebugConfig.sending_queue",
        "FileConfig.flush_interval",
        "FileStorageConfig.compaction",
        "FileStorageConfig.recreate",
        "FilterConfig.profile_conditions",
        "FilterConfig.profiles",
        "GRPCClientConfig.read_buffer_size",
        "GRPCServerConfig.read_buffer_size",
        "HTTPClientConfig.force_attempt_http2",
        "HTTPClientConfig.http2_ping_timeout",
        "HTTPClientConfig.http2_read_idle_timeout",
        "HTTPClientConfig.max_idle_conns",
        "HTTPClientConfig.max_idle_conns_per_host",
        "HTTPClientConfig.read_buffer_size",
        "HTTPClientConfig.write_buffer_size",
        "HostMetricsConfig.metadata_collection_interval",
        "LogsTelemetry.development",
        "LogsTelemetry.error_output_paths",
        "LogsTelemetry.processors",
        "MatchConfig.regexp",
        "MemoryLimiterConfig.max_gc_interval_when_hard_limited",
        "MemoryLimiterConfig.max_gc_interval_when_soft_limited",
        "MetricFilters.regexp",
        "MetricMatchConfig.expressions",
        "MetricMatchConfig.regexp",
        "MetricsReader.periodic",
        "MetricsTelemetry.views",
        "OTLPHTTPConfig.profiles_endpoint",
        "PipelineCheck.exporter_failure_threshold",
        "PipelineCheck.interval",
        "PprofConfig.block_profile_fraction",
        "PprofConfig.mutex_profile_fraction",
        "RegexpConfig.cacheenabled",
        "RegexpConfig.cachemaxnumentries",
        "PrometheusConfig.sending_queue",
        "ServiceGraphConfig.metrics_exporter",
        "SpanMetricsConfig.add_resource_attributes",
        "SpanMetricsConfig.dimensions_cache_size",
        "GlobalConfig.evaluation_interval",
        "HTTPAccess.enable_http2",
        "TLSServerConfig.ca_file",
        "TailSamplingConfig.expected_new_traces_per_sec",
        "ThriftUDPConfig.workers",
        "TelemetryConfig.traces",
        "WALConfig.buffer_size",
        "WALConfig.lag_record_frequency",
        "WALConfig.truncate_frequency",
    ]
)
"""Keys that are accepted for the Collector's files although they have no effect, as their documentation says."""
HAVE_ONE_VALUE = frozenset({"PrometheusReader.translation_strategy"})
"""Keys that are only accepted with the value that says how it is anyway."""
PASSED_ON = frozenset({"RemoteWriteQueueConfig.max_bytes"})
"""Keys that are only read as a part of their block, which becomes another block."""
SOMETIMES_WITHOUT_EFFECT = frozenset({"TLSClientConfig.insecure", "GRPCClientConfig.write_buffer_size"})
READ_BY_THE_NAME_OF_THEIR_TYPE = (
    "PolicyConfig",
    "SharedPolicyConfig",
    "AndSubPolicyConfig",
    "CompositeSubPolicyConfig",
)
SAYS_SO = ("no effect", "without effect", "without an effect")


def models():
    """Every model that a configuration may contain."""
    registry, found = Registry(), {}

    def add(model):
        if model in found:
            return
        found[model] = None
        for field in model.model_fields.values():
            for below in models_within(field.annotation):
                add(below)

    add(TelemetryConfig)
    for kind in ComponentKind:
        for component_type in registry.types(kind):
            add(registry.find(kind, component_type).config_type)
    return [model for model in found if model.__module__.split(".")[0] in SOURCES]


def models_within(annotation):
    for member in union_members(annotation):
        yield from models_among([member])
        for argument in getattr(member, "__args__", ()):
            yield from models_within(argument)


def readers(model):
    """The folders whose code may read the keys of the model: its component's own and, if it is shared, all that share it."""
    package, _, rest = model.__module__.partition(".")
    if package in COMPONENTS:
        return (f"{package}/{rest.partition('.')[0]}", "collector/ottl", "collector/prometheus", "collector/delivery")
    if model.__module__.startswith("config.model"):
        return ("config", "collector/service", "collector/cli")
    if model.__module__.startswith("config.blocks"):
        return ("config/blocks", "collector", *COMPONENTS)
    return ("collector", *COMPONENTS)


@cache
def names_read_in(path):
    """The names of all attributes that a file reads, and of those named by text."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            names.add(node.attr)
        elif isinstance(node, ast.Call) and (
            getattr(node.func, "id", "") == "getattr" or getattr(node.func, "attr", "") == "setting"
        ):  # getattr(self, "name"), and job.setting("name", …) of the receiver prometheus
            names.update(part.value for part in node.args if isinstance(part, ast.Constant))
        elif isinstance(node, ast.For | ast.comprehension):  # for name in ("a", "b"): getattr(self, name)
            names.update(part.value for part in ast.walk(node.iter) if isinstance(part, ast.Constant))
    return frozenset(names)


@cache
def names_read(folders):
    """The same of all files in the folders."""
    return frozenset().union(*(names_read_in(path) for folder in folders for path in (ROOT / folder).rglob("*.py")))


def fields():
    for model in models():
        assert issubclass(model, BaseModel)
        for name, field in model.model_fields.items():
            owner = next(base for base in reversed(model.__mro__) if name in getattr(base, "model_fields", {}))
            yield f"{owner.__name__}.{name}", name, owner, field.description or ""


def test_every_key_is_read():
    """A key that nothing reads is refused, implemented, or listed above. Keys of one name do not excuse each other."""
    unread = {key for key, name, owner, _ in fields() if name not in names_read(readers(owner))}
    unread = {key for key in unread if not key.startswith(READ_BY_THE_NAME_OF_THEIR_TYPE)}
    assert unread - WITHOUT_EFFECT - PASSED_ON == HAVE_ONE_VALUE


def test_keys_without_effect_are_those_listed():
    """The description of no other key says that it has no effect, and none of the keys listed has gone."""
    described = {key for key, _, _, description in fields() if any(words in description for words in SAYS_SO)}
    assert described - WITHOUT_EFFECT == SOMETIMES_WITHOUT_EFFECT
    assert {key for key, _, _, _ in fields()} >= WITHOUT_EFFECT


def test_an_unread_key_is_noticed():
    """The search does not find what is not there."""
    assert "no_key_of_this_name" + "_exists" not in names_read(SOURCES)
    assert "max_megabytes" in names_read(("exporters/file",))
    assert "max_megabytes" not in names_read(("exporters/debug",))
