"""The keys that the Collector's exporterhelper gives to exporters exist on every exporter here, with its defaults.

Source: the Collector's exporter/exporterhelper/internal/queuebatch/config.go, config/configretry, timeout_sender.go.
"""

import pytest

from collector.api import ComponentKind
from collector.delivery import ExporterConfig
from collector.registry import Registry
from config.blocks import ComponentConfig
from config.errors import ConfigErrors
from config.load import load

RETRY = {
    "enabled": True,
    "initial_interval": 5.0,
    "randomization_factor": 0.5,
    "multiplier": 1.5,
    "max_interval": 30.0,
    "max_elapsed_time": 300.0,
}
QUEUE = {
    "enabled": True,
    "num_consumers": 10,
    "queue_size": 1000,
    "sizer": "requests",
    "block_on_overflow": False,
    "wait_for_result": False,
    "storage": "",
    "batch": None,
}
BATCH = {"flush_timeout": 0.2, "min_size": 8192, "max_size": 0, "sizer": ""}
OWN = {
    "circuit_breaker": {"enabled": True, "failure_threshold": 5, "probe_interval": 5.0},
    "adaptive_concurrency": {"enabled": True, "latency_factor": 0.0},
}
DEAD_LETTER = {"storage": "s", "max_size": 256 * 1024 * 1024, "include_overflow": False}
# Type → what differs from the Collector's general defaults, as in the Collector's own exporter.
DIFFERENT = {
    "otlp_grpc": {},
    "otlp_http": {"timeout": 30.0},
    "jaeger": {},
    "loki": {"timeout": 30.0},
    "zipkin": {},
    "file": {"timeout": 0.0, "num_consumers": 1, "queue_size": 10_000},
}
# Exporters without a queue: they show data, or offer it to others, and send nothing.
WITHOUT_QUEUE = {"debug", "logging", "nop", "prometheus"}
MINIMAL = {
    "otlp_grpc": {"endpoint": "localhost:4317"},
    "otlp_http": {"endpoint": "http://localhost:4318"},
    "loki": {"endpoint": "http://localhost:3100"},
    "zipkin": {"endpoint": "http://localhost:9411/api/v2/spans"},
    "file": {"path": "out.jsonl"},
    "prometheus_remote_write": {"endpoint": "http://localhost:9090/api/v1/write"},
}


def config_of(component_type, **more):
    factory = Registry().find(ComponentKind.EXPORTER, component_type)
    return factory.config_type.model_validate({**MINIMAL.get(component_type, {}), **more})


def values(block, keys):
    """The values of the keys, blocks as dictionaries; AttributeError if one does not exist."""
    return {
        key: values(value, keys[key]) if isinstance(value := getattr(block, key), ComponentConfig) else value
        for key in keys
    }


def test_the_table_is_complete():
    """A new exporter has to be listed above."""
    types = {factory.component_type for factory in map(found, Registry().types(ComponentKind.EXPORTER))}
    assert types == {*DIFFERENT, *WITHOUT_QUEUE, "prometheus_remote_write"}


def found(component_type):
    return Registry().find(ComponentKind.EXPORTER, component_type)


@pytest.mark.parametrize("component_type", DIFFERENT)
def test_every_exporter_has_the_keys_and_defaults(component_type):
    config, differences = config_of(component_type), dict(DIFFERENT[component_type])
    assert isinstance(config, ExporterConfig)
    assert config.timeout == differences.pop("timeout", 5.0)
    assert values(config.retry_on_failure, RETRY) == RETRY
    assert values(config.sending_queue, QUEUE) == {**QUEUE, **differences}
    assert values(config, OWN) == OWN
    assert config.dead_letter is None


@pytest.mark.parametrize("component_type", DIFFERENT)
def test_every_exporter_takes_all_keys_at_once(component_type):
    """Written as in the Collector's documentation."""
    config = config_of(
        component_type,
        timeout="7s",
        retry_on_failure={
            "enabled": True,
            "initial_interval": "1s",
            "randomization_factor": 0.2,
            "multiplier": 2,
            "max_interval": "10s",
            "max_elapsed_time": 0,
        },
        sending_queue={
            "enabled": True,
            "num_consumers": 3,
            "queue_size": 100_000,
            "sizer": "items",
            "block_on_overflow": True,
            "storage": "file_storage",
            "batch": {
                "flush_timeout": "1s",
                "min_size": 10,
                "max_size": 20,
                "sizer": "bytes",
                "partition": {"metadata_keys": ["tenant"]},
            },
        },
        circuit_breaker={"enabled": False, "failure_threshold": 9, "probe_interval": "1s"},
        adaptive_concurrency={"enabled": False, "latency_factor": 2.5},
        dead_letter={"storage": "file_storage", "max_size": "1MiB", "include_overflow": True},
    )
    assert config.timeout == 7
    assert config.retry_on_failure.max_elapsed_time == 0
    assert set(values(config.sending_queue.batch, BATCH).items()) == {
        ("flush_timeout", 1.0),
        ("min_size", 10),
        ("max_size", 20),
        ("sizer", "bytes"),
    }
    assert list(config.sending_queue.batch.partition.metadata_keys) == ["tenant"]
    assert config.dead_letter.max_size == 1024 * 1024


def test_batch_defaults():
    config = config_of("otlp_grpc", sending_queue={"batch": {}})
    assert values(config.sending_queue.batch, BATCH) == BATCH


def test_remote_write_has_its_own_queue():
    """Its keys and defaults are those of the Collector's exporter; the rest is common to all."""
    config = config_of("prometheus_remote_write")
    assert config.timeout == 5.0
    assert values(config.retry_on_failure, RETRY) == {
        **RETRY,
        "initial_interval": 0.05,
        "max_interval": 30.0,
        "max_elapsed_time": 300.0,
    }
    queue = {"enabled": True, "queue_size": 10_000, "num_consumers": 5, "block_on_overflow": False, "storage": ""}
    assert values(config.remote_write_queue, queue) == queue
    assert values(config, OWN) == OWN
    kept = config_of("prometheus_remote_write", dead_letter={"storage": "s"}).dead_letter
    assert values(kept, DEAD_LETTER) == DEAD_LETTER


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"dead_letter": {}}, "storage is required"),
        ({"dead_letter": {"storage": "s", "max_size": 0}}, "greater than 0"),
        ({"adaptive_concurrency": {"latency_factor": 0.5}}, "latency_factor must be 0 or greater than 1, got 0.5"),
        ({"circuit_breaker": {"failure_threshold": 0}}, "greater than or equal to 1"),
        ({"circuit_breaker": {"probe_interval": "0s"}}, "greater than 0"),
        ({"retry_on_failure": {"max_elapsed_time": "1s"}}, r"must not be less than initial_interval \(5s\)"),
        ({"sending_queue": {"storage": "s", "wait_for_result": True}}, "cannot be combined with storage"),
    ],
)
def test_values_that_make_no_sense_are_refused(block, message):
    with pytest.raises(ValueError, match=message):
        config_of("otlp_grpc", **block)


def test_an_unset_block_is_not_shared():
    """Defaults are immutable, so one exporter cannot change another's."""
    block = config_of("otlp_grpc").circuit_breaker
    assert isinstance(block, ComponentConfig)
    with pytest.raises(ValueError, match="frozen"):
        block.enabled = False


def test_a_dead_letter_storage_that_is_not_an_extension_is_found_by_validation():
    """With the place in the file, before anything starts."""
    text = """
receivers: {otlp: {protocols: {grpc: }}}
exporters: {otlp_grpc: {endpoint: "localhost:4317", dead_letter: {storage: nothing}}}
service: {pipelines: {traces: {receivers: [otlp], exporters: [otlp_grpc]}}}
"""
    with pytest.raises(ConfigErrors) as caught:
        load([f"yaml:{text}"], (), Registry())
    (error,) = caught.value.errors
    assert "dead_letter" in str(error)
    assert "nothing" in str(error)
