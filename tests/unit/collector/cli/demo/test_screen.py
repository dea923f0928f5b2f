"""What the demo shows of the admin port's documents: the tree, the tables, and no control characters."""

import io

from rich.console import Console

from collector.cli.demo.screen import slowest, views


def shown(documents) -> str:
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    for view in views(documents):
        console.print(view)
    return console.file.getvalue()


def span(number, parent="", **changed):
    return {
        "span_id": f"{number:016x}", "parent_span_id": parent and f"{parent:016x}",
        "service": "api", "name": f"span {number}", "kind": "server",
        "start_offset_ms": float(number), "duration_ms": 10.0, "status": "unset", "attributes": {}, **changed,
    }  # fmt: skip


def trace(*spans, duration_ms=2500.0):
    return {
        "trace_id": "ab" * 16, "root_service": "api", "root_name": "POST /v1/embeddings",
        "duration_ms": duration_ms, "rule": "slow", "spans": list(spans),
    }  # fmt: skip


def sampling(*traces):
    return {"/sampling": {"sampling@traces": {"rules": [], "slowest": list(traces)}}}


def test_nothing_to_show():
    """Paths that do not answer, and empty documents, have no view."""
    assert views({}) == []
    assert (
        views({"/sampling": {}, "/span_metrics": {"span_metrics": {"services": []}}, "/cardinality": {"c@metrics": {}}})
        == []
    )


def test_the_slowest_of_all_processors():
    """The slowest trace is found across all processors."""
    documents = {
        "/sampling": {
            "a": {"slowest": [trace(span(1), duration_ms=3.0)]},
            "b": {"slowest": [trace(span(2), duration_ms=4.0)]},
        }
    }
    assert slowest(documents)["spans"][0]["name"] == "span 2"
    assert slowest({}) is None


def test_a_trace_is_a_tree():
    """Children are below their parents in order of time; GPU, queue and tenant are shown next to their span."""
    attributes = {"gpu.utilization.mean": 0.83, "gen_ai.latency.time_in_queue": 0.25, "tenant_id": "tenant-07"}
    text = shown(
        sampling(trace(span(1), span(3, 1, status="error"), span(2, 1), span(4, 2, attributes=attributes), span(9, 77)))
    )
    lines = [line for line in text.splitlines() if "span" in line]
    assert [line[line.index("span ") :][:6] for line in lines] == ["span 1", "span 2", "span 4", "span 3", "span 9"]
    assert lines[2].index("span 4") > lines[1].index("span 2") > lines[0].index("span 1")
    assert lines[4].index("span 9") == lines[0].index("span 1")  # its parent is not there
    assert "GPU 83%" in lines[2]
    assert "queued 250 ms" in lines[2]
    assert "tenant-07" in lines[2]
    assert "error" in lines[3]


def test_spans_that_are_their_own_ancestors_end():
    """Spans in a cycle are left out, and all others are shown."""
    text = shown(sampling(trace(span(1), span(2, 3), span(3, 2), span(4, 4))))
    assert "span 1" in text
    assert "span 4" in text


HOSTILE = "[red]x[/red]\x1b[31m\x9b\x07\r\u202e\nforged"


def strings_replaced(document):
    """The document with the hostile text for every string that does not link spans with each other."""
    if isinstance(document, dict):
        linking = {"span_id", "parent_span_id"}
        return {key: value if key in linking else strings_replaced(value) for key, value in document.items()}
    if isinstance(document, list):
        return [strings_replaced(value) for value in document]
    return HOSTILE if isinstance(document, str) else document


def test_text_from_outside_is_text():
    """Markup is not interpreted, and what is not printable is escaped, wherever it is."""
    documents = strings_replaced(
        sampling(trace(span(1, attributes={"tenant_id": "a"})))
        | {"/span_metrics": {"a": {"services": [SERVICE]}}, "/cardinality": {"c@metrics": {"attributes": [LABEL]}}}
    )
    text = shown(documents)
    assert text.count(r"[red]x[/red]\x1b[31m\x9b\x07\r\u202e") == 9
    assert text.replace("\n", "").isprintable()
    assert not any(line.startswith("forged") for line in text.splitlines())


def test_long_text_is_cut():
    """A name of megabytes is not sent to the terminal."""
    assert len(shown(sampling(trace(span(1, name="n" * 1_000_000))))) < 1000


SERVICE = {
    "service": "api", "calls": 10, "errors": 1, "error_ratio": 0.1, "p50_ms": 1.5, "p95_ms": 20.0, "p99_ms": None
}  # fmt: skip
LABEL = {"metric": "http_requests_total", "attribute": "user_id", "values": 4711, "samples": ["#ab12"]}


def test_tables():
    """One line per service, one line per label."""
    text = shown(
        {
            "/span_metrics": {"span_metrics": {"services": [SERVICE]}},
            "/cardinality": {"c@metrics": {"attributes": [LABEL]}},
        }
    )
    for part in ("api", "1 (10.0%)", "1.50 ms", "20 ms", "user_id", "4711", "#ab12"):
        assert part in text
