"""Fuzz target: pages of Prometheus. What can be read becomes a valid OTLP request, and again so when it is scraped anew.

First byte: the format. Under atheris: ``python tests/fuzz/fuzz_exposition.py CORPUS_DIR -max_total_time=60``.
"""

import asyncio
import contextlib
import sys
from typing import Any, Final

if __name__ == "__main__":
    import atheris

    instrumented: contextlib.AbstractContextManager[Any] = atheris.instrument_imports(include=["collector.exposition"])
else:
    instrumented = contextlib.nullcontext()
with instrumented:
    from collector.exposition import Identity, Page, PageError, SeriesTable, TextPage
    from collector.exposition.text import series_labels
from collector.model import Metrics

LOOP: Final = asyncio.new_event_loop()


def labels_of(name: str, pairs: Any) -> dict[str, str] | None:
    """No relabelling; a series of every eighth length is dropped."""
    return None if len(pairs) == 8 else {**dict(pairs), "__name__": name}


def test_one_input(data: bytes) -> None:
    """Reads, converts, scrapes half of it and ends."""
    openmetrics = bool(data[:1] and data[0] & 1)
    try:
        page = TextPage(data[1:], openmetrics)
    except PageError:
        return
    for row in page.samples:
        name, _ = series_labels(page.body, int(row["start"]), int(row["end"]))
        assert name
    table = SeriesTable(
        labels_of, lambda labels: Identity(labels.get("job", ""), ""), lambda one: {"job": one.job}, ("fuzz", "")
    )
    columns = Page.of(page)
    first = LOOP.run_until_complete(table.convert(columns, 1))
    again = LOOP.run_until_complete(table.convert(columns, 1))
    assert first.wire == again.wire
    assert not first.stale
    assert Metrics.from_wire(first.wire).item_count == first.point_count
    half = Page.of(TextPage(b""))
    gone = LOOP.run_until_complete(table.convert(half, 2))
    assert not gone.wire
    Metrics.from_wire(gone.stale)
    assert not table.end(3)


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
