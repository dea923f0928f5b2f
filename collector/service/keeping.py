"""Which components of the running graph stay as they are when the configuration is reloaded.

A component stays if a new object could not differ from it: its own configuration, its signals and the extensions that
it uses are the same, and so are the files that its configuration names (certificates). What is in front of it and
behind it may change, because only its outputs have to be led elsewhere. Processors of one id share state, so they stay
together or not at all.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from collector.api import ComponentId, ComponentKind, Status
from collector.model import Signal
from collector.service.nodes import Node, NodeKey
from config.model import Config

__all__ = ["Keeper", "states_of_files"]

_FAILED = frozenset({Status.PERMANENT_ERROR, Status.FATAL_ERROR})


class Keeper:
    """Finds the nodes of ``running`` that stay in ``config``. Extensions must be asked for first."""

    def __init__(self, config: Config, instance_id: str, running: Iterable[Node]) -> None:
        self._config = config
        self._instance_id = instance_id
        self._running = {node.key: node for node in running if node.is_started and not node.is_ended}
        self._extensions = self._kept_extensions()
        self._changed_processors = self._replaced_processors()

    def kept(
        self, key: NodeKey, config: Any, signals: Collection[Signal], emits: Collection[Signal], feeds: Collection[str]
    ) -> Node | None:
        """The node if it can serve a component with this configuration and these signals and outputs."""
        node = self._running.get(key)
        if node is None or not self._is_same(node, config):
            return None
        settings = node.settings
        has_same_outputs = settings.outputs.keys() == set(emits) and settings.pipelines.keys() == set(feeds)
        if set(signals) != settings.signals or not has_same_outputs:
            return None
        if node.kind is ComponentKind.EXTENSION:
            return node if str(node.id) in self._extensions else None
        return None if node.id in self._changed_processors and node.kind is ComponentKind.PROCESSOR else node

    def _is_same(self, node: Node, config: Any) -> bool:
        """Whether a new object would do the same, whatever its outputs."""
        host = node.host
        return (
            type(node.config) is type(config)
            and node.config == config
            and node.settings.instance_id == self._instance_id
            and host is not None
            and host.status not in _FAILED
            and (node.kind is ComponentKind.EXTENSION or host.used_extensions <= self._extensions)
            and node.files == states_of_files(config)
        )

    def _kept_extensions(self) -> set[str]:
        listed = {str(each): self._config.extensions[each].config for each in self._config.service.extensions}
        nodes = {str(node.id): node for node in self._running.values() if node.kind is ComponentKind.EXTENSION}
        kept = {name for name, config in listed.items() if name in nodes and self._is_same(nodes[name], config)}
        # Extensions can use each other.
        while gone := {name for name in kept if not _used_by(nodes[name]) <= kept}:
            kept -= gone
        return kept

    def _replaced_processors(self) -> set[ComponentId]:
        """The ids of processors of which at least one object does not stay."""
        now: dict[ComponentId, set[str]] = {}
        for pipeline in self._config.service.pipelines.values():
            for processor_id in pipeline.processors:
                now.setdefault(processor_id, set()).add(pipeline.id)
        before: dict[ComponentId, set[str]] = {}
        changed = set()
        for node in self._running.values():
            if node.kind is ComponentKind.PROCESSOR:
                before.setdefault(node.id, set()).add(node.pipeline)
                if node.id not in now or not self._is_same(node, self._config.processors[node.id].config):
                    changed.add(node.id)
        return changed | {each for each, pipelines in before.items() if now.get(each) != pipelines}


def _used_by(node: Node) -> set[str]:
    return node.host.used_extensions if node.host is not None else set()


def states_of_files(config: Any) -> Mapping[str, object]:
    """What tells whether the files that ``config`` names in keys such as ``cert_file`` were replaced, by path."""
    return {path: _state_of(path) for path in set(_paths(config))}


def _paths(config: Any) -> Iterator[str]:
    if isinstance(config, BaseModel):
        for name in type(config).model_fields:
            value = getattr(config, name)
            if isinstance(value, str) and name.endswith("_file"):
                if value:
                    yield value
            else:
                yield from _paths(value)
    elif isinstance(config, Mapping):
        for value in config.values():
            yield from _paths(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _paths(value)


def _state_of(path: str) -> object:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
