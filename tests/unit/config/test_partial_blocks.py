"""A partial block keeps the component's own defaults for the keys that it leaves out."""

import pytest
from pydantic import BaseModel

from collector.api import ComponentKind
from collector.registry import Registry
from config.blocks import ComponentConfig, QueueConfig, RetryConfig, TLSClientConfig

MODELS = sorted(
    {description.factory.config_type for description in Registry().describe() if description.factory},
    key=lambda model: model.__module__,
)


class Inner(ComponentConfig):
    a: int = 1
    b: int = 2


class Middle(ComponentConfig):
    inner: Inner = Inner()
    c: int = 3


class Outer(ComponentConfig):
    middle: Middle = Middle(inner=Inner(a=10), c=30)
    tls: TLSClientConfig = TLSClientConfig(insecure=True)
    retry: RetryConfig = RetryConfig.model_validate({"initial_interval": "50ms"})


def test_left_out_keys_keep_the_components_defaults_at_every_depth():
    """What is written wins; what the component sets explicitly stays; the rest are the block's own defaults."""
    loaded = Outer.model_validate({"middle": {"inner": {"b": 5}}, "retry": {"multiplier": 2}})
    assert loaded.middle == Middle(inner=Inner(a=10, b=5), c=30)
    assert (loaded.retry.initial_interval, loaded.retry.multiplier, loaded.retry.max_interval) == (0.05, 2, 30)


def test_a_tls_block_is_taken_as_it_is_written():
    """A certificate must not inherit a default that switches verification or TLS off."""
    assert Outer.model_validate({"tls": {"ca_file": "/ca.pem"}}).tls.insecure is False


@pytest.mark.parametrize(
    ("kind", "component_type", "block", "key", "value"),
    [
        (ComponentKind.EXPORTER, "prometheus_remote_write", {"randomization_factor": 0}, "initial_interval", 0.05),
        (ComponentKind.EXPORTER, "file", {"queue_size": 5}, "num_consumers", 1),
        (ComponentKind.EXPORTER, "debug", {"queue_size": 5}, "enabled", False),
    ],
)
def test_blocks_of_shipped_components_that_were_affected(kind, component_type, block, key, value):
    """The exporters that have retry and queue defaults of their own."""
    model = Registry().find(kind, component_type).config_type
    name = "retry_on_failure" if "randomization_factor" in block else "sending_queue"
    required = {"endpoint": "http://localhost:9090/api/v1/write"} if component_type.startswith("prom") else {}
    required |= {"path": "x"} if component_type == "file" else {}
    loaded = model.model_validate({**required, name: block})
    assert getattr(getattr(loaded, name), key) == value


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__module__)
def test_an_empty_block_means_the_default(model):
    """For every block of every component: ``key: {}`` is the same as leaving the key out."""
    blocks = {
        name: field.default
        for name, field in model.model_fields.items()
        if isinstance(field.default, BaseModel) and not getattr(field.default, "replaces_default", False)
    }
    for name, default in blocks.items():
        completed = model._complete_partial_blocks({name: {}})[name]
        assert type(default).model_validate(completed) == default, name


def test_queue_defaults_are_not_changed_by_a_default_of_another_component():
    """The class default stays what it is."""
    assert QueueConfig() == QueueConfig.model_validate({})
