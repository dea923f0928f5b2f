"""The ``redact_prompts`` processor: keeps the text of prompts and completions from leaving the platform."""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from collector.api import ComponentKind, Factory, Settings, Stability, Transform
from collector.model import Batch, Signal
from config import ComponentConfig, Secret

__all__ = ["RedactPrompts", "RedactPromptsConfig", "factory"]

_TABLES: Final[Mapping[Signal, tuple[str, ...]]] = {Signal.TRACES: ("spans", "events"), Signal.LOGS: ("records",)}
_FINGERPRINT_DIGITS: Final = 16


class RedactPromptsConfig(ComponentConfig):
    """What the user writes under ``processors: redact_prompts:``."""

    attributes: tuple[str, ...] = Field(
        default=("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions"), min_length=1
    )
    """Keys of the attributes to redact, on spans, span events and log records."""
    replacement: Literal["length", "fingerprint", "delete"] = "length"
    """``length``: ``[redacted: 42 characters]``; ``fingerprint``: a keyed hash; ``delete``: no attribute."""
    fingerprint_key: Secret = Secret("")
    """The key of the hash. Without one, anybody could recognise a prompt by hashing guesses."""

    @model_validator(mode="after")
    def _has_key(self) -> Self:
        if self.replacement == "fingerprint" and not self.fingerprint_key.get_secret_value():
            raise ValueError("fingerprint_key: required with replacement: fingerprint")
        return self


class RedactPrompts(Transform):
    """Redacts attributes by key. Never changes how many items there are."""

    def __init__(self, settings: Settings, config: RedactPromptsConfig) -> None:
        self._keys = config.attributes
        self._deletes = config.replacement == "delete"
        self._key = config.fingerprint_key.get_secret_value().encode()
        self._redacted = settings.telemetry.counter("tailrace_redact_prompts_values", "Attribute values redacted")

    def transform(self, batch: Batch) -> Batch:
        """The batch with the configured attributes redacted; the same object if it has none of them."""
        edit = batch.edit()
        redacted_count = 0
        for table in _TABLES[batch.signal]:
            for key in self._keys:
                column = batch.attribute(key, table)
                present_count = int(np.count_nonzero(column.present))
                if not present_count:
                    continue
                redacted_count += present_count
                if self._deletes:
                    edit.delete(key, table=table)
                else:  # as_text: a prompt may also be an array or a map
                    edit.set(key, column.as_text().map(self._replacement), table=table)
        if redacted_count:
            self._redacted.add(redacted_count)
        return edit.apply()

    def _replacement(self, text: str) -> str:
        """What stands in for ``text``. Called once per distinct value, not once per item."""
        if not self._key:
            return f"[redacted: {len(text)} characters]"
        digest = hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()
        return f"[redacted: {digest[:_FINGERPRINT_DIGITS]}]"


factory = Factory(
    component_type="redact_prompts",
    kind=ComponentKind.PROCESSOR,
    config_type=RedactPromptsConfig,
    create=RedactPrompts,
    signals=frozenset(_TABLES),
    stability=Stability.ALPHA,
)
