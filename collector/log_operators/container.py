"""The operator ``container``: log files of Docker, containerd and CRI-O.

Source: opentelemetry-collector-contrib pkg/stanza/operator/parser/container (v0.156).
"""

from collections.abc import Hashable
from typing import Final

import numpy as np

from collector.log_operators.conditions import Rows
from collector.log_operators.config import ContainerConfig, RecombineConfig
from collector.log_operators.cri import container_formats, parse_cri
from collector.log_operators.entries import Entries, Path
from collector.log_operators.fields import ATTRIBUTES, RESOURCE, parse_field, parse_rootable_field
from collector.log_operators.layouts import gotime_reader
from collector.log_operators.operators import Failures, Parser, Report, Transformer
from collector.log_operators.recombine import Recombine
from collector.log_operators.records import read_container
from collector.log_operators.texts import regex_function
from collector.log_operators.times import TimeReader

__all__ = ["Container"]

_DOCKER: Final = 1
_CRIO: Final = 2
_CONTAINERD: Final = 3
_NOT_PARSED: Final = 3
_PATH: Final = (
    r"^.*(?:/|\\)(?P<namespace>[^_]+)_(?P<pod_name>[^_]+)_(?P<uid>[a-f0-9\-]+)(?:/|\\)(?P<container_name>[^\._]+)(?:/|\\)"
    r"(?P<restart_count>\d+)\.log(?:\.\d{8}-\d{6})?$"
)
_METADATA: Final = {
    "container_name": "k8s.container.name",
    "namespace": "k8s.namespace.name",
    "pod_name": "k8s.pod.name",
    "restart_count": "k8s.container.restart_count",
    "uid": "k8s.pod.uid",
}
_FILE_PATH: Final = "log.file.path"


class Container(Transformer):
    """Parses each line in its format; lines that were split are put together with :class:`Recombine`."""

    def __init__(self, operator_id: str, config: ContainerConfig, report: Report) -> None:
        super().__init__(operator_id, config, report, None)
        self._format = {"": 0, "docker": _DOCKER, "crio": _CRIO, "containerd": _CONTAINERD}[config.format]
        self._source, self._target = parse_field(config.parse_from), parse_rootable_field(config.parse_to)
        utc, any_zone = "2006-01-02T15:04:05.999Z", "2006-01-02T15:04:05.999999999Z07:00"
        self._utc, self._any_zone = gotime_reader(utc, "UTC", {}), gotime_reader(any_zone, "Local", {})
        self._parse = Parser(config, self._parse_lines)
        self._adds_metadata = config.add_metadata_from_filepath
        self._path = Path(ATTRIBUTES, [_FILE_PATH], _FILE_PATH)
        self._resource = Path(RESOURCE, [], "resource")
        metadata = regex_function(_PATH)
        self._metadata = lambda text: {_METADATA[name]: value for name, value in metadata(text).items()}
        self.recombine = Recombine(
            operator_id,
            RecombineConfig(
                type="recombine",
                combine_field="body",
                is_last_entry="attributes.logtag == 'F'",
                combine_with="",
                max_batch_size=0,
                max_unmatched_batch_size=0,
                max_log_size=config.max_log_size,
            ),
            report,
        )

    @property
    def token(self) -> Hashable:
        """The token of the block at work."""
        return self.recombine.token

    @token.setter
    def token(self, token: Hashable) -> None:
        self.recombine.token = token

    def run(self, entries: Entries, rows: Rows) -> Rows:
        """See :class:`Operator`."""
        selected, bad = self.select(entries, rows)
        if not len(selected):
            return rows if not len(bad) else rows[~np.isin(rows, bad)]
        formats = self._formats(entries, selected)
        failures = self._parse(entries, selected)
        for kind in (_DOCKER, _CRIO, _CONTAINERD):
            mask = (formats == kind) & (failures == 0)
            if mask.any():
                part = np.ascontiguousarray(selected[mask])
                failures[mask] = self._finished(entries, part, self._any_zone if kind == _CRIO else self._utc)
        if failures.any():
            bad = np.concatenate((bad, self.failed(selected, failures)))
        split = np.ascontiguousarray(selected[(formats >= _CRIO) & (failures == 0)])
        if not len(split):
            return rows if not len(bad) else rows[~np.isin(rows, bad)]
        whole = self.recombine.run(entries, split)
        if len(split) == len(rows):
            return whole
        return np.concatenate((rows[~np.isin(rows, np.concatenate((bad, split)))], whole))

    def _formats(self, entries: Entries, rows: Rows) -> Failures:
        if self._format:
            return np.full(len(rows), self._format, np.uint8)
        return container_formats(entries, rows, self._source)

    def _parse_lines(self, entries: Entries, rows: Rows) -> Failures:
        formats = self._formats(entries, rows)
        failures = np.full(len(rows), _NOT_PARSED, np.uint8)
        for kind in (_DOCKER, _CRIO, _CONTAINERD):
            mask = formats == kind
            if not mask.any():
                continue
            part = np.ascontiguousarray(rows[mask])
            failures[mask] = (
                entries.parse_json(part, self._source, self._target, False)
                if kind == _DOCKER
                else parse_cri(entries, part, self._source, self._target, kind == _CONTAINERD)
            )
        return failures

    def _finished(self, entries: Entries, rows: Rows, reader: TimeReader) -> Failures:
        failures = read_container(entries, rows, reader)
        if self._adds_metadata:
            is_read = failures == 0
            failures[is_read] = entries.apply(
                np.ascontiguousarray(rows[is_read]), self._path, self._resource, self._metadata
            )
        return failures
