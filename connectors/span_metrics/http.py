"""Method, endpoint and status of HTTP spans, from both generations of the semantic conventions.

Source: OpenTelemetry semantic conventions, http/http-spans (stable) and 1.20 (the generation before):
http.request.method or http.method, http.response.status_code or http.status_code, http.route, url.path or http.target,
url.full or http.url.
"""

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import numpy as np

from collector.model import AttributeColumn, StringColumn, Traces
from collector.model.arrays import Array, Mask
from collector.text.cache import cached_by_text
from collector.text.path_template import template_path

__all__ = ["HttpColumns", "http_columns"]

_METHOD: Final = ("http.request.method", "http.method")
_STATUS: Final = ("http.response.status_code", "http.status_code")
_PATH: Final = ("url.path", "http.target")
_URL: Final = ("url.full", "http.url")
_ENDPOINT_MAX_CHARS: Final = 256


@dataclass(frozen=True, slots=True)
class HttpColumns:
    """Of all spans of a batch, or of some."""

    method: StringColumn
    """Absent if the span is not an HTTP span."""
    endpoint: StringColumn
    status: StringColumn
    is_error: Mask
    """bool[n]: the status is 5xx."""

    def take(self, rows: Array) -> "HttpColumns":
        """The columns of ``rows``."""
        return HttpColumns(
            self.method.take(rows), self.endpoint.take(rows), self.status.take(rows), self.is_error[rows]
        )


def http_columns(batch: Traces) -> HttpColumns:
    """The columns of the spans of a batch."""
    method = _first(batch, _METHOD).as_text()
    status = _first(batch, _STATUS).as_text()
    route = batch.attribute("http.route").text
    route = route.only(~route.equals(""))
    endpoint = route
    if not endpoint.present.all():
        path = _first(batch, _PATH).text
        endpoint = _fill(endpoint, path.only(~endpoint.present).map(_template))
    if not endpoint.present.all():
        endpoint = _fill(endpoint, _first(batch, _URL).text.map(_template_url))
    if not endpoint.present.all():
        endpoint = _fill(endpoint, batch.field("name").map(_template_name))
    return HttpColumns(method, endpoint, status, status.where(_is_server_error))


def _first(batch: Traces, keys: tuple[str, str]) -> AttributeColumn:
    stable, older = keys
    column = batch.attribute(stable)
    return column if column.present.all() else column.fill(batch.attribute(older))


def _fill(column: StringColumn, other: StringColumn) -> StringColumn:
    values = [*column.distinct_bytes, *other.distinct_bytes]
    shifted = np.where(other.codes >= 0, other.codes + column.distinct_count, -1)
    return StringColumn.from_codes(np.where(column.codes >= 0, column.codes, shifted), values)


@cached_by_text
def _template(path: str) -> str:
    return template_path(path.partition("?")[0].partition("#")[0][:_ENDPOINT_MAX_CHARS])


def _template_url(url: str) -> str | None:
    try:
        return _template(urlsplit(url).path or "/")
    except ValueError:
        return None


def _template_name(name: str) -> str | None:
    """The endpoint of a span that is named like ``GET /users/1``; None for other names."""
    path = name.partition(" ")[2]
    return _template(path) if path.startswith("/") else None


def _is_server_error(status: str) -> bool:
    return len(status) == 3 and status.startswith("5") and status.isdigit()
