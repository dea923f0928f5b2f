"""Batches against protobuf messages: equal operations give equal content, and the index carried over is right."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.model import EMPTY_CONTEXT, Batch, Context, Logs, Metrics, Signal, Traces, batch_type
from collector.wire.errors import MalformedBatch

COUNT = settings(max_examples=60, deadline=None)


def draw_mask(data, count):
    return np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), np.bool_)


@COUNT
@given(data=st.data())
def test_select_keeps_the_masked_items_and_no_empty_parent(otlp, data):
    """``select`` equals pruning the message."""
    batch = data.draw(otlp.batches())
    mask = draw_mask(data, batch.item_count)
    selected = batch.select(mask)
    if mask.all():
        assert selected is batch
        return
    assert otlp.canonical(otlp.parsed(selected)) == otlp.canonical(otlp.pruned(otlp.parsed(batch), mask))
    otlp.assert_same_index(selected)


@COUNT
@given(data=st.data())
def test_select_of_parents_keeps_all_that_is_below_them(otlp, data):
    """A mask over resources, scopes or metrics selects the items below."""
    batch = data.draw(otlp.batches())
    table = data.draw(st.sampled_from(batch.schema.path[:-1]))
    mask = draw_mask(data, batch.table(table).row_count)
    selected = batch.select(mask, table)
    if not mask.all():
        assert otlp.canonical(otlp.parsed(selected)) == otlp.canonical(
            otlp.pruned(otlp.parsed(batch), mask[batch.ancestor(table)])
        )
    otlp.assert_same_index(selected)


@COUNT
@given(data=st.data())
def test_select_of_children_leaves_their_items(otlp, data):
    """Events, links, exemplars and quantiles can be dropped without their items."""
    batch = data.draw(otlp.batches((Traces, Metrics)))
    table = data.draw(st.sampled_from(batch.tables[len(batch.schema.path) :]))
    mask = draw_mask(data, batch.table(table).row_count)
    selected = batch.select(mask, table)
    expected = otlp.parsed(batch)
    kept = iter(mask)
    for item in otlp.items(expected):
        children = getattr(item, {"quantiles": "quantile_values"}.get(table, table), None)
        if children is not None:
            chosen = [child for child in list(children) if next(kept)]
            del children[:]
            children.extend(chosen)
    assert otlp.canonical(otlp.parsed(selected)) == otlp.canonical(expected)
    otlp.assert_same_index(selected)


@COUNT
@given(data=st.data())
def test_partition_gives_each_item_to_its_part(otlp, data):
    """The part of each code is the selection of its items, or None without items; -1 is dropped."""
    batch = data.draw(otlp.batches())
    codes = np.array(
        data.draw(st.lists(st.integers(-1, 2), min_size=batch.item_count, max_size=batch.item_count)), np.int32
    )
    for code, part in enumerate(batch.partition(codes, 3)):
        if part is None:
            assert code not in codes
        elif not (codes == code).all():
            assert otlp.canonical(otlp.parsed(part)) == otlp.canonical(otlp.pruned(otlp.parsed(batch), codes == code))
            otlp.assert_same_index(part)


@COUNT
@given(data=st.data())
def test_split_keeps_order_and_limits(otlp, data):
    """Parts have the items in order, and only a part of a single item exceeds a limit."""
    batch = data.draw(otlp.batches())
    max_items = data.draw(st.integers(0, 5))
    max_bytes = data.draw(st.sampled_from((0, 1, 100, 300, 1000)))
    parts = batch.split(max_items=max_items, max_bytes=max_bytes)
    for part in parts:
        assert not max_items or part.item_count <= max_items
        assert not max_bytes or part.size_bytes <= max_bytes or part.item_count <= 1
        otlp.assert_same_index(part)
    joined = [item.SerializeToString(deterministic=True) for part in parts for item in otlp.items(otlp.parsed(part))]
    assert joined == [item.SerializeToString(deterministic=True) for item in otlp.items(otlp.parsed(batch))]


@COUNT
@given(data=st.data())
def test_concat_joins_content_and_index(otlp, data):
    """The joined batch has the resources of the messages in order."""
    kind = data.draw(st.sampled_from((Traces, Metrics, Logs)))
    batches = data.draw(st.lists(otlp.batches((kind,)), min_size=1, max_size=4))
    joined = kind.concat(batches)
    expected = otlp.REQUESTS[kind]()
    for batch in batches:
        expected.MergeFrom(otlp.parsed(batch))
    assert otlp.canonical(otlp.parsed(joined)) == otlp.canonical(expected)
    assert joined.item_count == sum(batch.item_count for batch in batches)
    otlp.assert_same_index(joined)


@COUNT
@given(data=st.data())
def test_changes_of_a_batch_without_an_index_are_the_same(otlp, data):
    """The bytes do not depend on whether the index was built."""
    batch = data.draw(otlp.batches())
    mask = draw_mask(data, batch.item_count)
    assert batch.select(mask).wire == batch.without_index().select(mask).wire


def spans(request_type, count=6):
    request = request_type()
    for r in range(2):
        resource = request.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = f"s{r}"
        resource.resource.attributes.add(key="both").value.string_value = "resource"
        scope = resource.scope_spans.add()
        scope.scope.attributes.add(key="both").value.string_value = "scope"
        for i in range(count // 2):
            span = scope.spans.add(
                trace_id=bytes(15) + bytes((r + 1,)), span_id=bytes(7) + bytes((i + 1,)), name=f"op{i}"
            )
            if i == 0:
                span.attributes.add(key="both").value.string_value = "span"
            span.events.add(name="e")
    return request


@pytest.fixture
def traces(otlp):
    return Traces.from_wire(spans(otlp.REQUESTS[Traces]).SerializeToString())


def test_inherited_attributes_come_from_the_nearest_level(traces):
    """Values are inherited from the span's scope, then from its resource."""
    assert traces.attribute("both", inherit=True).text.to_list() == ["span", "scope", "scope"] * 2
    assert traces.attribute("service.name", inherit=True).text.to_list() == ["s0"] * 3 + ["s1"] * 3
    assert traces.attribute("service.name").present.sum() == 0
    assert traces.attribute("both", "scopes", inherit=True).text.to_list() == ["scope", "scope"]
    assert traces.attribute("service.name", "events", inherit=True).text.to_list() == ["s0"] * 3 + ["s1"] * 3


def test_ancestors(traces):
    """The ancestor of each row; only tables above can be ancestors."""
    assert traces.ancestor("resources").tolist() == [0, 0, 0, 1, 1, 1]
    assert traces.ancestor("spans", "events").tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(KeyError, match="not above"):
        traces.ancestor("events")


def test_unknown_tables_and_fields_name_those_there_are(traces):
    """The error lists the valid names."""
    with pytest.raises(KeyError, match="spans"):
        traces.table("records")
    with pytest.raises(KeyError, match="trace_state"):
        traces.field("nope")


def test_the_index_counts_as_memory(traces):
    """``memory_bytes`` grows with the index, ``without_index`` frees it, and the bytes stay the same object."""
    bare = traces.without_index()
    assert bare.memory_bytes == bare.size_bytes
    before = traces.memory_bytes
    traces.attributes()
    traces.field("name").distinct  # noqa: B018
    assert traces.memory_bytes > before
    assert traces.without_index().wire is traces.wire


def test_nothing_can_be_written_to(traces):
    """All arrays are read-only, because batches are shared."""
    arrays = [
        traces.table().rows,
        traces.table().parent,
        traces.field("trace_id"),
        traces.field("kind"),
        traces.field("name").codes,
    ]
    arrays += [
        traces.attributes().rows,
        traces.attributes().owner,
        traces.attribute("both").kind,
        traces.attributes().int,
    ]
    arrays += [traces.select(np.arange(6) < 2).table().rows, Traces.concat([traces, traces]).table().rows]
    for array in arrays:
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_contexts_that_differ_do_not_merge(traces):
    """Only batches with equal contexts are joined."""
    other = traces.with_context(Context(tenant="t"))
    assert other.context.tenant == "t"
    assert other.wire is traces.wire
    with pytest.raises(ValueError, match="context"):
        Traces.concat([traces, other])
    with pytest.raises(ValueError, match="at least one batch"):
        Traces.concat([])
    assert Traces.concat([other, other]).context == other.context
    assert other.select(np.arange(6) < 1).context == other.context
    assert Context() == EMPTY_CONTEXT


def test_an_empty_batch_has_no_bytes_and_answers_everything(traces):
    """A batch without items has item_count 0, wire b"" and empty columns."""
    empty = traces.select(np.zeros(6, np.bool_))
    assert (empty.item_count, empty.wire) == (0, b"")
    assert len(empty.field("name")) == len(empty.attribute("both", inherit=True)) == len(empty.field("trace_id")) == 0
    assert empty.split(max_items=1) == [empty]
    assert empty.partition(np.empty(0, np.int32), 2) == [None, None]
    assert Traces.concat([empty, traces]) is traces
    assert empty.edit().set("k", 1).delete("k").apply() is empty
    assert Traces.check(b"").batch is None
    assert Traces.from_wire(b"").item_count == 0


def test_a_mask_of_another_length_is_refused(traces):
    """A mask is not silently cut or padded."""
    with pytest.raises(ValueError, match="expected a mask of 6 rows, got 5"):
        traces.select(np.zeros(5, np.bool_))
    with pytest.raises(ValueError, match="expected a mask of 6 rows, got 7"):
        traces.select(np.ones(7, np.bool_))


def test_malformed_bytes_do_not_become_a_batch():
    """The error of the door says where and why."""
    with pytest.raises(MalformedBatch):
        Traces.from_wire(b"\x0a\x05\x01")


def test_batch_types_by_signal():
    """Each signal has one batch class."""
    assert [batch_type(signal) for signal in Signal] == [Traces, Metrics, Logs]
    assert all(issubclass(batch_type(signal), Batch) and batch_type(signal).signal is signal for signal in Signal)
    assert Signal.METRICS.item_name == "metric_points"
