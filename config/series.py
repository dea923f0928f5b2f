"""Foresees that streams will become one series in Prometheus, because what tells them apart is removed on the way."""

from collections.abc import Mapping
from typing import Any

from collector.api import ComponentId, ComponentKind, Trait
from collector.model import Signal
from config.errors import ConfigError
from config.graph import Factories
from config.model import ConfiguredComponent, Pipeline, ServiceConfig

__all__ = ["warn_of_merged_series"]

Configured = Mapping[ComponentKind, Mapping[ComponentId, ConfiguredComponent]]

_LABEL_KEYS = ("resource_constant_labels", "resource_to_telemetry_conversion")
"""The Collector's keys for resource attributes as labels: an exporter that has both knows streams by their labels."""
_IDENTITY = {
    "service.name": "metrics of all services",
    "service.instance.id": "metrics of all instances of a service",
}
"""The resource attributes that are labels in any case (``job``, ``instance``), and what they tell apart."""


def warn_of_merged_series(
    service: ServiceConfig, factories: Factories, configured: Configured, warnings: list[ConfigError]
) -> None:
    """Append a warning for each processor that removes the identity of what an exporter writes to Prometheus.

    Only what is certain is reported: whether senders set the attribute at all cannot be known here, nor what resources
    look like behind a connector that makes metrics of its own accord.
    """
    writers = _Writers(service, factories, configured)
    for pipeline in service.pipelines.values():
        missing: frozenset[str] = frozenset()
        for index, processor_id in enumerate(pipeline.processors):
            processor = configured[ComponentKind.PROCESSOR].get(processor_id)
            if processor is None:
                continue
            behind = processor.config.missing_resource_attributes(missing)
            for key in _IDENTITY:
                if key in behind - missing:
                    found = writers.behind(pipeline, index + 1, key)
                    warnings += [_warning(processor, pipeline, exporter_id, key) for exporter_id in found]
            missing = behind


def _warning(processor: ConfiguredComponent, pipeline: Pipeline, exporter_id: ComponentId, key: str) -> ConfigError:
    message = (
        f"removes {key} in the pipeline '{pipeline.id}', so the exporter '{exporter_id}' writes {_IDENTITY[key]} "
        "as one series: sums are added up, and only the latest value of a gauge remains"
    )
    hint = f"keep {key}, or make another attribute a label with resource_constant_labels"
    return ConfigError(processor.position, ("processors", str(processor.id)), message, hint=hint)


class _Writers:
    """Which exporters to Prometheus are behind a place in a pipeline."""

    def __init__(self, service: ServiceConfig, factories: Factories, configured: Configured) -> None:
        self._service, self._factories, self._configured = service, factories, configured

    def behind(self, pipeline: Pipeline, index: int, key: str, seen: tuple[str, ...] = ()) -> list[ComponentId]:
        """The exporters that write metrics without the attribute if it is missing before the ``index``-th processor."""
        missing = frozenset({key})
        for processor_id in pipeline.processors[index:]:
            processor = self._configured[ComponentKind.PROCESSOR].get(processor_id)
            if processor is not None:
                missing = processor.config.missing_resource_attributes(missing)
        if key not in missing:
            return []
        found: dict[ComponentId, None] = {}
        for exporter_id in pipeline.exporters:
            exporter = self._configured[ComponentKind.EXPORTER].get(exporter_id)
            if exporter is None:
                for other in self._fed_by(exporter_id, pipeline):
                    if other.id not in seen:
                        found.update(dict.fromkeys(self.behind(other, 0, key, (*seen, other.id))))
            elif pipeline.signal is Signal.METRICS and _knows_only_identity(exporter.config):
                found[exporter_id] = None
        return [*found]

    def _fed_by(self, connector_id: ComponentId, pipeline: Pipeline) -> list[Pipeline]:
        """The pipelines that get what the connector makes of the pipeline's items, with their resources."""
        factory = self._factories[ComponentKind.CONNECTOR].get(connector_id, (None, None))[0]
        if factory is None or Trait.KEEPS_RESOURCES not in factory.traits:
            return []
        return [
            other
            for other in self._service.pipelines.values()
            if connector_id in other.receivers and (pipeline.signal, other.signal) in factory.connects
        ]


def _knows_only_identity(config: Any) -> bool:
    """Whether the configuration is one of an exporter to Prometheus, and no other resource attributes become labels."""
    fields = type(config).model_fields
    return all(key in fields and getattr(config, key) == fields[key].default for key in _LABEL_KEYS)
