"""The inner steps of six hard processors, written against the model: each is short and none loops over items.

The loops below run over batches, bucket layouts or distinct values, never over spans, points, records or attributes.
"""

import re

import numpy as np
import pytest

from collector.model import KeyTable, Logs, Metrics, StringColumn, Traces, groups

SECOND = 10**9


def trace_request(otlp, *traces):
    """One span per (trace number, name, start s, end s, error)."""
    request = otlp.REQUESTS[Traces]()
    scope = request.resource_spans.add().scope_spans.add()
    for number, name, start, end, error in traces:
        span = scope.spans.add(trace_id=number.to_bytes(16, "big"), span_id=b"\1" * 8, name=name)
        span.start_time_unix_nano, span.end_time_unix_nano = int(start * SECOND), int(end * SECOND)
        span.status.code = 2 if error else 0
    return Traces.from_wire(request.SerializeToString())


def test_tail_sampling_gathers_whole_traces_by_decision(otlp):
    """Batches are kept with the slot of each span; a decision per slot selects the spans of kept traces from all."""
    pending = KeyTable({"error": np.bool_, "first_ns": np.uint64, "last_ns": np.uint64})
    held = []
    for batch in (
        trace_request(otlp, (1, "a", 0, 1, False), (2, "b", 0, 1, False), (3, "c", 0, 1, False)),
        trace_request(otlp, (3, "d", 1, 9, False), (2, "e", 1, 2, True), (1, "f", 1, 2, False)),
    ):
        slots, is_new = pending.insert(batch.field("trace_id"))
        np.bitwise_or.at(pending.column("error"), slots, batch.field("status_code") == 2)
        pending.column("first_ns")[slots[is_new]] = np.iinfo(np.uint64).max
        np.minimum.at(pending.column("first_ns"), slots, batch.field("start_time_unix_nano"))
        np.maximum.at(pending.column("last_ns"), slots, batch.field("end_time_unix_nano"))
        held.append((batch, slots))

    live = pending.live()
    slow = pending.column("last_ns")[live] - pending.column("first_ns")[live] > 5 * SECOND
    keep = np.zeros(live.max() + 1, np.bool_)
    keep[live] = pending.column("error")[live] | slow
    kept = Traces.concat([batch.select(keep[slots]) for batch, slots in held])
    pending.remove(live)

    assert kept.field("name").to_list() == ["b", "c", "d", "e"]
    assert len(pending) == 0


def histogram_request(otlp, rows):
    """Cumulative histograms of one metric: (user, counts by bucket, sum)."""
    request = otlp.REQUESTS[Metrics]()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="latency", unit="s")
    metric.histogram.aggregation_temporality = 2
    for user, counts, total in rows:
        point = metric.histogram.data_points.add(
            count=sum(counts), sum=total, bucket_counts=counts, explicit_bounds=(0.1, 1.0)
        )
        point.attributes.add(key="user").value.string_value = user
    return Metrics.from_wire(request.SerializeToString())


def test_a_cap_adds_what_each_cumulative_source_grew_by_to_one_overflow_series(otlp):
    """The growth of series beyond the limit, found by their key, is summed bucket by bucket."""
    width = 3
    state = KeyTable({"buckets": (np.uint64, (width,)), "count": np.uint64, "sum": np.float64})
    limit, overflow = 1, np.zeros(width, np.uint64)
    overflow_sum, passed = 0.0, []
    for batch in (
        histogram_request(otlp, [("a", (1, 0, 0), 0.1), ("b", (2, 1, 0), 1.0), ("c", (0, 0, 5), 50.0)]),
        histogram_request(otlp, [("a", (2, 0, 0), 0.2), ("b", (2, 3, 1), 5.0), ("c", (1, 0, 5), 50.1)]),
    ):
        points = batch.table().rows
        slots, _ = state.insert(batch.series_key())
        allowed = slots < limit
        passed.append(batch.select(allowed))
        folded = np.flatnonzero(~allowed & (points["buckets_len"] == 8 * width))
        wire = np.frombuffer(batch.wire, np.uint8)
        buckets = wire[points["buckets"][folded][:, None] + np.arange(8 * width)].view(np.uint64)
        slot = slots[folded]
        reset = points["count"][folded] < state.column("count")[slot]
        overflow += (buckets - np.where(reset[:, None], 0, state.column("buckets")[slot])).sum(axis=0, dtype=np.uint64)
        overflow_sum += float((points["sum"][folded] - np.where(reset, 0, state.column("sum")[slot])).sum())
        state.column("buckets")[slot], state.column("count")[slot], state.column("sum")[slot] = (
            buckets,
            points["count"][folded],
            points["sum"][folded],
        )

    assert overflow.tolist() == [2 + 1, 1 + 2, 5 + 1]
    assert overflow_sum == pytest.approx(55.1)
    assert [batch.attribute("user").text.to_list() for batch in passed] == [["a"], ["a"]]


def test_points_of_one_group_are_summed_with_reduceat(otlp):
    """Points are grouped by the remaining attributes and summed per group without a loop."""
    request = otlp.REQUESTS[Metrics]()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="requests")
    metric.sum.aggregation_temporality, metric.sum.is_monotonic = 1, True
    for route, user, value in (("/a", "1", 2), ("/b", "1", 3), ("/a", "2", 5), ("/b", "3", 7)):
        point = metric.sum.data_points.add(as_int=value)
        point.attributes.add(key="route").value.string_value = route
        point.attributes.add(key="user").value.string_value = user
    batch = Metrics.from_wire(request.SerializeToString())
    stripped = batch.edit().delete("user").apply()
    found = groups(stripped.series_key())
    order = np.argsort(found.codes, kind="stable")
    starts = np.searchsorted(found.codes[order], np.arange(found.count))
    sums = np.add.reduceat(stripped.field("int_value")[order], starts)
    assert dict(zip(stripped.attribute("route").take(found.first).text.to_list(), sums.tolist(), strict=True)) == {
        "/a": 7,
        "/b": 10,
    }


def test_gpu_energy_is_joined_to_each_spans_own_interval(otlp):
    """Cumulative joules are interpolated at the start and end of each span, for the spans of one kind of work only."""
    batch = trace_request(
        otlp,
        (1, "embed", 0, 1, False),
        (2, "embed", 0.5, 2.5, False),
        (3, "search", 0, 3, False),
        (4, "embed", 8, 9, False),
    )
    times = np.arange(6) * SECOND
    joules = np.array([0.0, 100, 300, 600, 600, 600])
    start, end = batch.field("start_time_unix_nano"), batch.field("end_time_unix_nano")
    used = np.interp(end, times, joules) - np.interp(start, times, joules)
    where = batch.field("name").equals("embed") & (start >= times[0]) & (end <= times[-1])
    enriched = batch.edit().set("gpu.energy_j", used, where).set("gpu.id", "GPU-0", where).apply()
    assert enriched.attribute("gpu.energy_j").present.tolist() == [True, True, False, False]
    assert enriched.attribute("gpu.energy_j").double[:2].tolist() == [100.0, 450.0 - 50.0]
    assert enriched.attribute("gpu.id").text.to_list() == ["GPU-0", "GPU-0", None, None]


def test_redaction_blanks_secrets_in_span_and_event_attributes_and_deletes_keys(otlp):
    """The expression runs once per distinct value of a key; exception events are a table like any other."""
    request = otlp.REQUESTS[Traces]()
    scope = request.resource_spans.add().scope_spans.add()
    for card in ("4111111111111111", "none"):
        span = scope.spans.add(name="pay")
        span.attributes.add(key="note").value.string_value = f"card {card}"
        span.attributes.add(key="password").value.string_value = "hunter2"
        span.attributes.add(key="cards").value.array_value.values.add().string_value = card
        event = span.events.add(name="exception")
        event.attributes.add(key="exception.message").value.string_value = f"refused {card}"
    batch = Traces.from_wire(request.SerializeToString())
    secret = re.compile(r"\b4\d{15}\b")
    edit = batch.edit()
    for table in ("resources", "scopes", "spans", "events", "links"):
        for key in batch.attributes(table).key.distinct:
            text = batch.attribute(key, table).as_text()
            is_secret = text.where(lambda value: secret.search(value) is not None)
            edit.set(key, text.map(lambda value: secret.sub("****", value)), is_secret, table=table)
        edit.delete("password", table=table)
    redacted = edit.apply()
    assert b"4111" not in redacted.wire
    assert b"hunter2" not in redacted.wire
    assert redacted.attribute("note").text.to_list() == ["card ****", "card none"]
    assert redacted.attribute("exception.message", "events").text.to_list() == ["refused ****", "refused none"]
    assert redacted.attribute("cards").as_text().to_list() == ['["****"]', '["none"]']


def test_remote_write_looks_its_label_bytes_up_by_series(otlp):
    """Label bytes are made once per new series and joined from the cache by slot afterwards."""
    cache = KeyTable({"label": np.int32})
    labels: list[bytes] = []
    made = 0
    for values in ((1.0, 2.0), (3.0, 4.0)):
        request = otlp.REQUESTS[Metrics]()
        resource = request.resource_metrics.add()
        resource.resource.attributes.add(key="service.name").value.string_value = "api"
        metric = resource.scope_metrics.add().metrics.add(name="up")
        for instance, value in zip("ab", values, strict=True):
            point = metric.gauge.data_points.add(as_double=value, time_unix_nano=5 * SECOND)
            point.attributes.add(key="instance").value.string_value = instance
        batch = Metrics.from_wire(request.SerializeToString())
        slots, is_new = cache.insert(batch.series_key())
        new = np.flatnonzero(is_new)
        made += len(new)
        names = batch.field("name", "metrics").take(batch.ancestor("metrics")[new])
        job = batch.attribute("service.name", "resources").take(batch.ancestor("resources")[new]).as_text()
        instance = batch.attribute("instance").take(new).as_text()
        cache.column("label")[slots[new]] = np.arange(len(labels), len(labels) + len(new))
        labels += [
            f'{n}{{instance="{i}",job="{j}"}}'.encode()
            for n, i, j in zip(names.to_list(), instance.to_list(), job.to_list(), strict=True)
        ]
        label = cache.column("label")[slots]
        milliseconds = batch.field("time_unix_nano") // 1_000_000
        written = list(
            zip(
                [labels[code] for code in label.tolist()],
                batch.field("value").tolist(),
                milliseconds.tolist(),
                strict=True,
            )
        )
    assert made == 2
    assert written == [(b'up{instance="a",job="api"}', 3.0, 5000), (b'up{instance="b",job="api"}', 4.0, 5000)]


def test_loki_streams_are_the_groups_of_equal_label_sets(otlp):
    """Labels come from resources and records; each set of labels is a group with its lines in order of time."""
    request = otlp.REQUESTS[Logs]()
    for service, records in (
        ("api", ((3, "INFO", "c"), (1, "INFO", "a"))),
        ("db", ((2, "WARN", "b"),)),
        ("api", ((0, "INFO", "z"),)),
    ):
        resource = request.resource_logs.add()
        resource.resource.attributes.add(key="service.name").value.string_value = service
        scope = resource.scope_logs.add()
        for time, level, line in records:
            record = scope.log_records.add(time_unix_nano=time, severity_text=level)
            record.body.string_value = line
    batch = Logs.from_wire(request.SerializeToString())
    columns: dict[str, StringColumn] = {
        "service_name": batch.attribute("service.name", inherit=True).as_text().fill("unknown_service"),
        "level": batch.field("severity_text").map(str.lower),
        "namespace": batch.attribute("service.namespace", inherit=True).as_text(),
    }
    streams = groups(*columns.values())
    sets = [
        {name: value for name, value in zip(columns, values, strict=True) if value is not None}
        for values in zip(*(column.take(streams.first).to_list() for column in columns.values()), strict=True)
    ]
    order = np.lexsort((batch.field("time_unix_nano"), streams.codes))
    lines = batch.field("body").as_text().take(order).to_list()
    assert sets == [{"service_name": "api", "level": "info"}, {"service_name": "db", "level": "warn"}]
    assert streams.codes[order].tolist() == [0, 0, 0, 1]
    assert lines == ["z", "a", "c", "b"]
