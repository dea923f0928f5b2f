"""The exporter ``logging``, which the Collector replaced by ``debug`` and removed: its keys, shown as ``debug`` does.

Source: the Collector's exporter/loggingexporter (until 0.110), config.go and README.md.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal

from pydantic import BeforeValidator, Field

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from config.blocks import ComponentConfig, OutdatedKey
from exporters.debug.config import DebugConfig
from exporters.debug.debug import DebugExporter

__all__ = ["LoggingConfig", "factory"]

_VERBOSITY: Final = {
    "debug": "detailed",
    "info": "normal",
    "warn": "basic",
    "error": "basic",
    "dpanic": "basic",
    "panic": "basic",
    "fatal": "basic",
}


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _verbosity(level: object) -> str:
    """The verbosity that stands for ``loglevel``."""
    verbosity = _VERBOSITY.get(level.lower()) if isinstance(level, str) else None
    if verbosity is None:
        raise ValueError(f"loglevel: expected one of {', '.join(_VERBOSITY)}")
    return verbosity


class LoggingConfig(ComponentConfig):
    """What is shown of the telemetry."""

    outdated_keys: ClassVar[Mapping[str, OutdatedKey]] = {"loglevel": OutdatedKey("verbosity", _verbosity)}

    verbosity: Annotated[Literal["basic", "normal", "detailed"], BeforeValidator(_lower)] = "normal"
    """``basic`` and ``normal`` show counts, ``detailed`` every field."""
    sampling_initial: int = Field(default=2, ge=0)
    """Number of batches of each signal that are shown in each second before sampling begins."""
    sampling_thereafter: int = Field(default=500, ge=0)
    """After those, every n-th batch of the second is shown. 0: none. Batches that are not shown also count as
    delivered.
    """


def create(settings: Settings, config: LoggingConfig) -> DebugExporter:
    """A ``debug`` exporter that shows what ``logging`` showed."""
    verbosity: Literal["basic", "detailed"] = "detailed" if config.verbosity == "detailed" else "basic"
    debug = DebugConfig(
        verbosity=verbosity,
        sampling_initial=config.sampling_initial,
        sampling_thereafter=config.sampling_thereafter,
    )
    return DebugExporter(settings, debug)


factory = Factory(
    component_type="logging",
    config_type=LoggingConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset(Signal),
    kind=ComponentKind.EXPORTER,
    replacement="debug, which has the keys verbosity, sampling_initial and sampling_thereafter as well",
)
