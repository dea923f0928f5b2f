"""Adds what the detectors find to the resource of everything that passes.

Detection runs once for all pipelines that have the processor, when the service starts: it waits for it, up to the
time-out, so that already the first data has the attributes. Unlike in the Collector, a detector that fails does not
keep the service from starting; detection is repeated until all have succeeded.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from collector.api import Host, PeriodicTask, Settings, SharedKey, Transform
from collector.model import AttributeValue, Batch
from processors.resource_detection import local, services
from processors.resource_detection.config import ResourceDetectionConfig
from processors.resource_detection.fetch import DetectionError

__all__ = ["ResourceDetectionProcessor"]

_RETRY_INTERVAL_S: Final = 30.0
_Detect = Callable[[ResourceDetectionConfig], Awaitable[dict[str, Any]]]
_DETECTORS: Final[Mapping[str, _Detect]] = {
    "env": local.detect_env,
    "system": local.detect_system,
    "lambda": local.detect_lambda,
    "heroku": local.detect_heroku,
    "gpu": local.detect_gpu,
    "docker": services.detect_docker,
    "k8s_api": services.detect_k8s_api,
    "k8snode": services.detect_k8snode,
    "ec2": services.detect_ec2,
    "eks": services.detect_eks,
    "gcp": services.detect_gcp,
    "azure": services.detect_azure,
    "aks": services.detect_aks,
}


class _Detection:
    """What the detectors have found so far, for all objects of one id."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, AttributeValue]] = {}
        """Detector → attributes; a detector that has not succeeded yet is missing."""
        self.lock = asyncio.Lock()

    def attributes(self, config: ResourceDetectionConfig) -> dict[str, AttributeValue]:
        """All of them; the first detector that has an attribute counts."""
        merged: dict[str, AttributeValue] = {}
        for name in config.detectors:
            for key, value in self.found.get(name, {}).items():
                if not config.attributes or key in config.attributes:
                    merged.setdefault(key, value)
        return merged


_DETECTION: Final = SharedKey("resource_detection.detection", _Detection)


class ResourceDetectionProcessor(Transform):
    """The processor of one pipeline."""

    def __init__(self, settings: Settings, config: ResourceDetectionConfig) -> None:
        self._config, self._log = config, settings.telemetry.log
        self._detection = settings.shared.get(_DETECTION)
        self._mode: Final = "upsert" if config.override else "insert"
        self._attributes: dict[str, AttributeValue] = {}
        interval_s = config.refresh_interval or _RETRY_INTERVAL_S
        self._repeating = PeriodicTask(self._repeat, interval_s, settings.clock, log=self._log)

    async def start(self, host: Host) -> None:  # noqa: ARG002 - needs nothing of it
        """Detect, and repeat that if it is configured or has not succeeded."""
        await self._detect(is_first=True)
        if self._config.refresh_interval or self._missing():
            self._repeating.start()

    async def shutdown(self) -> None:
        """End the repetition."""
        await self._repeating.stop()

    def transform(self, batch: Batch) -> Batch:
        """The batch with the attributes in its resources."""
        if not self._attributes or not batch.item_count:
            return batch
        edit = batch.edit()
        for key, value in self._attributes.items():
            edit.set(key, value, table="resources", mode=self._mode)
        return edit.apply()

    def _missing(self) -> list[str]:
        return [name for name in self._config.detectors if name not in self._detection.found]

    async def _repeat(self) -> None:
        if self._config.refresh_interval or self._missing():
            await self._detect(is_first=False)

    async def _detect(self, *, is_first: bool) -> None:
        """Run the detectors that have not succeeded yet; when it is repeated by configuration, all of them."""
        async with self._detection.lock:
            is_refresh = not is_first and self._config.refresh_interval > 0
            names = list(self._config.detectors) if is_refresh else self._missing()
            for name, found in zip(names, await asyncio.gather(*map(self._run, names)), strict=True):
                if found is not None:
                    self._detection.found[name] = found
        self._attributes = self._detection.attributes(self._config)
        if names:
            self._log.info("resource information was detected", attributes=sorted(self._attributes))

    async def _run(self, name: str) -> dict[str, AttributeValue] | None:
        """The attributes that one detector finds; None if it fails."""
        try:
            async with asyncio.timeout(self._config.timeout):
                found = await _DETECTORS[name](self._config)
        except (DetectionError, TimeoutError) as error:
            self._log.warning(
                "a detector failed; it is tried again later", detector=name, error=str(error) or "no answer in time"
            )
            return None
        allowed = self._config.enabled(name)
        is_open = name == "env"  # any attribute may be in the environment
        prefixes = ("ec2.tag.", "azure.tag.", "gcp.gce.instance.labels.")
        return {
            key: value
            for key, value in found.items()
            if value is not None and value != "" and (is_open or key in allowed or key.startswith(prefixes))
        }
