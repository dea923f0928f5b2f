"""Sanitizes the names of spans: those of HTTP spans as URLs, those of database spans as statements.

Source: opentelemetry-collector-contrib processor/redactionprocessor, spanname.go of internal/url and internal/db.
"""

from typing import Final

import numpy as np

from collector.model import Batch, StringColumn
from collector.model.arrays import Mask
from collector.otlp.semantics import SPAN_KINDS
from collector.text.cache import TextCache
from processors.redaction.attributes import Systems
from processors.redaction.config import RedactionConfig
from processors.redaction.urls import sanitize_url
from processors.redaction.values import Policy

__all__ = ["SpanNames"]

_CACHE_BYTES: Final = 1024 * 1024
_HTTP_KEYS: Final = (
    "http.route",
    "http.request.method",
    "http.request.method_original",
    "http.response.status_code",
    "url.full",
    "http.scheme",
    "http.target",
    "http.method",
    "http.url",
)
_URL_KINDS: Final = (SPAN_KINDS.index("CLIENT"), SPAN_KINDS.index("SERVER"))
_DATABASE_KINDS: Final = (*_URL_KINDS, SPAN_KINDS.index("INTERNAL"))


class SpanNames:
    """The rules for span names of one configuration."""

    def __init__(self, policy: Policy, config: RedactionConfig) -> None:
        self._policy = policy
        url, databases = config.url_sanitizer, config.db_sanitizer
        self._has_urls = url.enabled and url.sanitize_span_name is not False
        self._has_databases = bool(policy.sanitizers) and databases.sanitize_span_name is not False
        self._systems = Systems(policy.sanitizers)
        self._names = TextCache[str](max_bytes=_CACHE_BYTES)

    @property
    def is_needed(self) -> bool:
        """Whether the configuration changes span names at all."""
        return self._has_urls or self._has_databases

    def changes(self, batch: Batch) -> StringColumn | None:
        """The new names, absent where they stay; None if they all stay. The attributes are redacted already."""
        names: StringColumn = batch.field("name")
        kind = batch.field("kind")
        is_http = np.isin(kind, _URL_KINDS) if self._has_urls else np.zeros(len(kind), np.bool_)
        if is_http.any():
            is_http &= names.where(lambda name: "/" in name) | self._has_http_attribute(batch)
        systems = np.zeros(len(kind), np.int32)
        if self._has_databases:
            systems = np.where(np.isin(kind, _DATABASE_KINDS), self._systems.rows(batch, "spans"), np.int32(0))
        groups = systems * 2 + is_http
        wanted = (groups > 0) & names.present
        if not wanted.any():
            return None
        group_count = self._systems.count * 2
        pairs = names.codes[wanted].astype(np.int64) * group_count + groups[wanted]
        distinct, places = np.unique(pairs, return_inverse=True)
        texts = names.distinct
        new: list[str] = []
        found = np.full(len(distinct), -1, np.int32)
        for place, pair in enumerate(distinct.tolist()):
            code, group = divmod(pair, group_count)
            name = self._sanitized(texts[code], group)
            if name != texts[code]:
                found[place] = len(new)
                new.append(name)
        if not new:
            return None
        codes = np.full(len(names), -1, np.int32)
        codes[wanted] = found[places]
        return StringColumn.from_codes(codes, new)

    def _has_http_attribute(self, batch: Batch) -> Mask:
        found = np.zeros(batch.item_count, np.bool_)
        known = frozenset(batch.attributes("spans").key.distinct)
        for key in _HTTP_KEYS:
            if key in known:
                found |= batch.attribute(key, "spans").present
        return found

    def _sanitized(self, name: str, group: int) -> str:
        key = (name, group)
        new = self._names.get(key, "\0")
        if new == "\0":
            new = self._name(name, *divmod(group, 2))
            self._names.put(key, new)
        return new

    def _name(self, name: str, system: int, is_http: int) -> str:
        if self._policy.is_allowed(name):
            return name
        if is_http:
            sanitized = sanitize_url(name)
            # A name of which nothing remains says nothing any more, so it stays.
            if sanitized != name and not _is_blank(sanitized):
                return sanitized if sanitized not in {"", "..."} else name
        kind = self._systems.name(system)
        for sanitizer in self._policy.sanitizers:
            if kind and kind in sanitizer.systems:
                sanitized = sanitizer.text(name, kind)
                return sanitized if sanitized not in {"", "..."} else name
        return name


def _is_blank(path: str) -> bool:
    """Whether every segment was replaced."""
    segments = [segment for segment in path.split("/") if segment]
    return bool(segments) and all(segment == "*" for segment in segments)
