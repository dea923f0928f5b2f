"""Discovery: where the targets of a job come from. Each finds groups of labels, which are refreshed by themselves.

Source: prometheus/prometheus discovery/{file,http,dns}; documentation of scrape_configs.
"""

import asyncio
import json
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from config.yaml import parse, plain
from receivers.prometheus.access import Access, AccessError
from receivers.prometheus.config import DNSDiscoveryConfig, FileDiscoveryConfig, HTTPDiscoveryConfig, StaticConfig

__all__ = ["DNSDiscovery", "Discovery", "DiscoveryError", "FileDiscovery", "HTTPDiscovery", "static_labels"]

_LIST_MAX_BYTES: Final = 64 * 1024 * 1024
_FILE_CHECK_S: Final = 5.0  # Prometheus is told of changes at once; this is how soon we see them
_REQUEST_TIMEOUT_S: Final = 30.0


class DiscoveryError(Exception):
    """Targets cannot be found now; those found before stay."""


class Discovery(Protocol):
    """Finds targets, again and again."""

    name: str
    """Its kind, for logs and metrics."""
    refresh_s: float
    """The time between two calls of ``find``."""

    def open(self) -> None:
        """Make what ``find`` needs."""

    async def find(self) -> list[dict[str, str]]:
        """The labels of each target, among them ``__address__``.

        Raises:
            DiscoveryError: They cannot be found now.
        """
        ...

    async def close(self) -> None:
        """Release everything."""


def static_labels(configs: Sequence[StaticConfig]) -> list[dict[str, str]]:
    """The labels of targets that are written in the configuration."""
    return [{**config.labels, "__address__": address} for config in configs for address in config.targets]


def _groups(document: Any, source: str, extra: Mapping[str, str]) -> list[dict[str, str]]:
    """The labels of the targets in a list of mappings with ``targets`` and ``labels``."""
    if not isinstance(document, list):
        raise DiscoveryError(f"{source}: expected a list of mappings with targets and labels")
    found = []
    for group in document:
        targets = group.get("targets", []) if isinstance(group, dict) else None
        labels = group.get("labels") or {} if isinstance(group, dict) else {}
        if (
            not isinstance(targets, list)
            or not isinstance(labels, dict)
            or not all(isinstance(target, str) for target in targets)
            or not all(isinstance(key, str) and isinstance(value, str) for key, value in labels.items())
        ):
            raise DiscoveryError(f"{source}: expected mappings with targets, a list of texts, and labels, all texts")
        found += [{**labels, **extra, "__address__": target} for target in targets]
    return found


class FileDiscovery:
    """Targets in files. A file that cannot be read keeps the targets that it had."""

    name = "file"

    def __init__(self, config: FileDiscoveryConfig) -> None:
        self._config = config
        self.refresh_s = min(config.refresh_interval, _FILE_CHECK_S)
        self._known: dict[str, tuple[object, list[dict[str, str]]]] = {}

    def open(self) -> None:
        """Nothing is needed."""

    async def close(self) -> None:
        """Nothing is held."""

    async def find(self) -> list[dict[str, str]]:
        """See ``Discovery``."""
        return await asyncio.to_thread(self._find)

    def _find(self) -> list[dict[str, str]]:
        known, failed = {}, ""
        for pattern in self._config.files:
            path = Path(pattern)
            for file in sorted(path.parent.glob(path.name)) if "*" in path.name else [path]:
                name = str(file)
                try:
                    status = file.stat()
                    state = (status.st_mtime_ns, status.st_size, status.st_ino)
                    old = self._known.get(name)
                    known[name] = old if old is not None and old[0] == state else (state, self._read(file))
                except (OSError, ValueError, DiscoveryError) as error:
                    failed = str(error) if name in str(error) else f"{name}: {error}"
                    if name in self._known:
                        known[name] = self._known[name]
        self._known = known
        if failed and not known:
            raise DiscoveryError(failed)
        return [labels for _, found in known.values() for labels in found]

    @staticmethod
    def _read(file: Path) -> list[dict[str, str]]:
        if file.stat().st_size > _LIST_MAX_BYTES:
            raise DiscoveryError(f"{file}: larger than {_LIST_MAX_BYTES} bytes")
        text = file.read_text("utf-8")
        document = json.loads(text) if file.suffix == ".json" else plain(parse(text, str(file)))
        return _groups(document or [], str(file), {"__meta_filepath": str(file)})


class HTTPDiscovery:
    """Targets that an HTTP server lists."""

    name = "http"

    def __init__(self, config: HTTPDiscoveryConfig, user_agent: str) -> None:
        self._config = config
        self.refresh_s = config.refresh_interval
        self._access = Access(config, user_agent)

    def open(self) -> None:
        """Make the client."""
        self._access.open()

    async def close(self) -> None:
        """Close the connections."""
        await self._access.close()

    async def find(self) -> list[dict[str, str]]:
        """See ``Discovery``."""
        headers = {"Accept": "application/json", "X-Prometheus-Refresh-Interval-Seconds": f"{self.refresh_s:g}"}
        try:
            answer = await self._access.get(self._config.url, headers, _REQUEST_TIMEOUT_S, _LIST_MAX_BYTES)
            document = json.loads(answer.body)
        except (AccessError, ValueError) as error:
            raise DiscoveryError(f"{self._config.url}: {error}") from error
        return _groups(document, self._config.url, {"__meta_url": self._config.url})


class DNSDiscovery:
    """Targets by the addresses of host names."""

    name = "dns"

    def __init__(self, config: DNSDiscoveryConfig) -> None:
        self._config = config
        self.refresh_s = config.refresh_interval

    def open(self) -> None:
        """Nothing is needed."""

    async def close(self) -> None:
        """Nothing is held."""

    async def find(self) -> list[dict[str, str]]:
        """See ``Discovery``."""
        family = socket.AF_INET if self._config.type == "A" else socket.AF_INET6
        loop = asyncio.get_running_loop()
        found = []
        for name in self._config.names:
            try:
                async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                    rows = await loop.getaddrinfo(name, None, family=family, type=socket.SOCK_STREAM)
            except (OSError, TimeoutError) as error:
                raise DiscoveryError(f"{name}: {error}") from error
            for address in sorted({str(row[4][0]) for row in rows}):
                host = f"[{address}]" if ":" in address else address
                found.append({"__address__": f"{host}:{self._config.port}", "__meta_dns_name": name})
        return found
