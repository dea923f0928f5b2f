"""The ledger: it balances, shows when it does not, and is readable."""

from collector.api import ComponentId, ComponentKind
from collector.model import Signal
from collector.service.ledger import Ledger

OTLP, LOKI, BATCH = ComponentId("otlp"), ComponentId("loki", "a"), ComponentId("batch")


def filled() -> Ledger:
    ledger = Ledger()
    for transport, received in (("grpc", 7), ("http", 5)):
        door = ledger.entry(ComponentKind.RECEIVER, OTLP, Signal.LOGS, transport=transport)
        door.received, door.out, door.rejected = received, received - 2, 1
        door.refuse(1, "queue_full")
    stage = ledger.entry(ComponentKind.PROCESSOR, BATCH, Signal.LOGS, pipeline="logs")
    stage.received, stage.out = 8, 6
    stage.holders.append(lambda: 1)
    stage.drop(1, "filtered")
    exporter = ledger.entry(ComponentKind.EXPORTER, LOKI, Signal.LOGS)
    exporter.received, exporter.delivered = 6, 5
    exporter.refuse(1, "http_400")
    return ledger


def test_sums_a_receivers_transports_and_closes():
    """There is one row for the node, and it is balanced."""
    rows = {row.node: row for row in filled().snapshot()}
    assert list(rows) == ["receivers/otlp", "processors/batch@logs", "exporters/loki/a"]
    assert rows["receivers/otlp"].received == 12
    assert rows["receivers/otlp"].refused == {"queue_full": 2}
    assert filled().imbalances() == []


def test_no_items_leave_no_reason():
    """A loss of nothing is not shown as a loss."""
    entry = Ledger().entry(ComponentKind.EXPORTER, LOKI, Signal.LOGS)
    entry.drop(0, "error")
    entry.refuse(0, "http_400")
    assert (entry.dropped, entry.refused) == ({}, {})


def test_an_item_that_vanished_and_one_counted_twice_are_found():
    """The sign of the imbalance tells which of the two it was."""
    ledger = filled()
    exporter = ledger.entry(ComponentKind.EXPORTER, LOKI, Signal.LOGS)
    exporter.delivered = 3
    assert [row.imbalance for row in ledger.imbalances()] == [2]
    exporter.delivered = 6
    assert [row.imbalance for row in ledger.imbalances()] == [-1]
    [row] = [row for row in ledger.snapshot() if row.imbalance]
    assert row.log_fields()["imbalance"] == -1


def test_the_fields_of_a_log_event_have_totals_and_reasons():
    """An exporter's ``out`` is what it delivered; a row that balances has no imbalance."""
    receiver, *_, exporter = (row.log_fields() for row in filled().snapshot())
    assert receiver["node"] == "receivers/otlp"
    assert (receiver["refused"], receiver["reasons"]) == (4, "2 queue_full, 2 invalid")
    assert exporter["node"].startswith("exporters/loki")
    assert exporter["reasons"].endswith("1 http_400")
    assert "imbalance" not in exporter


def test_the_outcomes_of_the_metric_add_up_to_what_was_received():
    """/ledger shows the same counts as the metric, and both close."""
    for row in filled().snapshot():
        document = row.to_json()
        assert document["imbalance"] == 0
        counts = {(outcome, reason): count for outcome, reason, count in row.outcomes()}
        assert counts.pop(("received", "")) == document["received"]
        for reason, count in document["refused"].items():
            assert counts["refused", reason] == count
        created = counts.pop(("created", ""), 0)
        counts.pop(("dead_lettered", ""), None)
        assert row.received + created == sum(counts.values()) + row.held


def test_two_components_can_hold_the_items_of_one_entry():
    """The one that drains after a reload and its successor."""
    ledger = Ledger()
    entry = ledger.entry(ComponentKind.EXPORTER, LOKI, Signal.LOGS)
    entry.received = 5
    entry.holders += [lambda: 2, lambda: 3]
    assert ledger.imbalances() == []
    assert entry.unaccounted(5) == 0
    entry.received = 6
    assert entry.unaccounted(5) == 1


def test_entries_that_never_had_an_item_can_be_discarded():
    """A configuration that could not be started leaves no rows behind."""
    ledger = filled()
    ledger.entry(ComponentKind.EXPORTER, ComponentId("nop"), Signal.LOGS)
    ledger.entry(ComponentKind.EXPORTER, ComponentId("debug"), Signal.LOGS)
    ledger.discard_unused(lambda entry: entry.component_id == ComponentId("debug"))
    assert {row.node for row in ledger.snapshot()} == {row.node for row in filled().snapshot()} | {"exporters/debug"}
