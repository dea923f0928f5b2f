"""Items go to the pipelines of the first route that they match, and every item is accounted for."""

import pytest

from collector.api import RetryableError
from collector.model import Context, Signal, Traces
from collector.testing import RecordingTelemetry, Sink, logs, make_settings, metrics, traces
from connectors.routing import factory


def connector(signal, names, telemetry=None, **options):
    sinks = {name: Sink(signal) for name in names}
    settings = make_settings(
        factory, signals={signal}, telemetry=telemetry or RecordingTelemetry(), pipelines=sinks, outputs={}
    )
    return factory.create(settings, factory.config_type.model_validate(options)), sinks


def balanced(telemetry, batch, sinks):
    """Whether received + created = out + dropped."""
    out = sum(sink.item_count for sink in sinks.values())
    ledger = telemetry.ledger
    return batch.item_count + ledger.created[batch.signal] == out + ledger.dropped_count(batch.signal)


async def test_the_first_route_that_matches_gets_the_item():
    """The rest goes to the default pipelines."""
    batch, telemetry = traces(spans=200), RecordingTelemetry()
    table = [
        {"context": "span", "condition": "status.code == STATUS_CODE_ERROR", "pipelines": ["traces/errors"]},
        {"context": "span", "condition": "kind == SPAN_KIND_SERVER", "pipelines": ["traces/server"]},
    ]
    names = ["traces/errors", "traces/server", "traces/rest"]
    under_test, sinks = connector(Signal.TRACES, names, telemetry, table=table, default_pipelines=["traces/rest"])
    await under_test.consume(batch)
    is_error, is_server = batch.field("status_code") == 2, batch.field("kind") == 2
    assert sinks["traces/errors"].item_count == is_error.sum() > 0
    assert sinks["traces/server"].item_count == (is_server & ~is_error).sum() > 0
    assert sinks["traces/rest"].item_count == (~is_server & ~is_error).sum() > 0
    assert balanced(telemetry, batch, sinks)


async def test_copied_items_are_seen_by_later_routes():
    """They also go on to the default pipelines, and the additional items count as created."""
    batch, telemetry = traces(spans=200), RecordingTelemetry()
    table = [
        {"context": "span", "condition": "kind == SPAN_KIND_SERVER", "action": "copy", "pipelines": ["traces/a"]},
        {"context": "span", "condition": "status.code == STATUS_CODE_ERROR", "pipelines": ["traces/b", "traces/a"]},
    ]
    under_test, sinks = connector(
        Signal.TRACES, ["traces/a", "traces/b", "traces/c"], telemetry, table=table, default_pipelines=["traces/c"]
    )
    await under_test.consume(batch)
    is_error, is_server = batch.field("status_code") == 2, batch.field("kind") == 2
    assert sinks["traces/a"].item_count == (is_server | is_error).sum()
    assert sinks["traces/b"].item_count == is_error.sum()
    assert sinks["traces/c"].item_count == (~is_error).sum()
    assert telemetry.ledger.created[Signal.TRACES] > 0
    assert balanced(telemetry, batch, sinks)


@pytest.mark.parametrize(
    "route",
    [
        {"condition": 'attributes["service.name"] == "{}"'},
        {"condition": 'resource.attributes["service.name"] == "{}"'},
        {"statement": 'route() where attributes["service.name"] == "{}"'},
        {"context": "log", "condition": 'resource.attributes["service.name"] == "{}"'},
    ],
)
async def test_routes_by_resource(route):
    """With and without a context, as condition and as statement; the rest is dropped and counted."""
    batch, telemetry = logs(records=90, services=3), RecordingTelemetry()
    service = batch.attribute("service.name", "resources").text.to_list()[0]
    route = {key: value.replace("{}", service) for key, value in route.items()} | {"pipelines": ["logs/a"]}
    under_test, sinks = connector(Signal.LOGS, ["logs/a"], telemetry, table=[route])
    await under_test.consume(batch)
    wanted = batch.attribute("service.name", inherit=True).text.equals(service)
    assert sinks["logs/a"].item_count == wanted.sum() > 0
    assert telemetry.ledger.dropped_count(Signal.LOGS, "unrouted") == (~wanted).sum() > 0
    assert balanced(telemetry, batch, sinks)


async def test_routes_metrics_by_name_and_by_point():
    """A condition on a metric applies to all its points."""
    batch = metrics(points=100)
    name = batch.field("name", "metrics").to_list()[0]
    table = [
        {"context": "metric", "condition": f'name == "{name}"', "pipelines": ["metrics/a"]},
        {"context": "datapoint", "statement": "route()", "pipelines": ["metrics/b"]},
    ]
    under_test, sinks = connector(Signal.METRICS, ["metrics/a", "metrics/b"], table=table)
    await under_test.consume(batch)
    wanted = batch.field("name", "metrics").take(batch.ancestor("metrics")).equals(name)
    assert sinks["metrics/a"].item_count == wanted.sum()
    assert sinks["metrics/b"].item_count == (~wanted).sum()


@pytest.mark.parametrize(
    ("condition", "metadata", "matches"),
    [
        ('request["X-Tenant"] == "acme"', (("x-tenant", ("acme",)),), True),
        ('request["X-Tenant"] == "acme"', (("x-tenant", ("other", "acme")),), True),
        ('request["X-Tenant"] == "acme"', (("x-tenant", ("other",)),), False),
        ('request["X-Tenant"] == "acme"', (), False),
        ('request["X-Tenant"] != "acme"', (("x-tenant", ("other",)),), True),
        ('request["X-Tenant"] != "acme"', (), False),
    ],
)
async def test_routes_by_header_of_the_request(condition, metadata, matches):
    """As in the Collector, a request without the header matches neither == nor !=."""
    route = {"context": "request", "condition": condition, "pipelines": ["traces/a"]}
    under_test, sinks = connector(
        Signal.TRACES, ["traces/a", "traces/b"], table=[route], default_pipelines=["traces/b"]
    )
    batch = Traces(traces(spans=5).wire, Context(metadata=metadata))
    await under_test.consume(batch)
    assert sinks["traces/a" if matches else "traces/b"].batches == [batch]


@pytest.mark.parametrize(("mode", "lines"), [("ignore", 1), ("silent", 0), ("propagate", 1)])
async def test_conditions_that_cannot_be_evaluated(mode, lines):
    """The items do not match, or the batch is dropped; the log says so unless it is silent."""
    telemetry = RecordingTelemetry()
    route = {"context": "log", "condition": "severity_number > 3", "pipelines": ["logs/a"]}
    under_test, sinks = connector(
        Signal.LOGS, ["logs/a", "logs/b"], telemetry, table=[route], default_pipelines=["logs/b"], error_mode=mode
    )
    batch = logs(records=5)
    rows = (batch.field("severity_number") >= 0).copy()
    table = under_test._tables[Signal.LOGS]
    table[0] = type(table[0])(lambda _: (rows & False, rows), table[0].pipelines, is_copy=False)
    await under_test.consume(batch)
    assert sinks["logs/b"].item_count == (0 if mode == "propagate" else 5)
    assert telemetry.ledger.dropped_count(Signal.LOGS, "error") == (5 if mode == "propagate" else 0)
    assert len(telemetry.log.events) == lines
    assert balanced(telemetry, batch, sinks)


async def test_an_error_of_one_pipeline_does_not_keep_data_from_the_others():
    """The sender still learns of it."""
    table = [{"statement": "route()", "pipelines": ["traces/a", "traces/b"]}]
    under_test, sinks = connector(Signal.TRACES, ["traces/a", "traces/b"], table=table)
    sinks["traces/a"].fail_with = RetryableError("not now")
    with pytest.raises(RetryableError):
        await under_test.consume(traces(spans=3))
    assert sinks["traces/b"].item_count == 3


@pytest.mark.parametrize(
    ("route", "message"),
    [
        ({}, "exactly one of condition and statement"),
        ({"condition": "true", "statement": "route()"}, "exactly one of condition and statement"),
        ({"statement": 'delete_key(attributes, "a")'}, "is not supported; write route[(][)] where"),
        ({"context": "request", "statement": "route()"}, "needs a condition, not a statement"),
        ({"context": "request", "condition": 'request["a"] > "b"'}, "expected request"),
    ],
)
def test_impossible_routes_are_refused(route, message):
    """Each message says what to write."""
    with pytest.raises(ValueError, match=message):
        factory.config_type.model_validate({"table": [{"pipelines": ["logs"], **route}]})


@pytest.mark.parametrize(
    ("route", "message"),
    [
        ({"condition": 'attributes["a"] =='}, "table::0: "),
        ({"context": "span", "condition": "true"}, "table::0: the context 'span' is not available for logs"),
        ({"condition": "true", "pipelines": ["logs/x"]}, "there is no pipeline 'logs/x'.*only: logs/a"),
    ],
)
def test_routes_are_checked_when_the_graph_is_built(route, message):
    """So ``validate`` finds them."""
    with pytest.raises(ValueError, match=message):
        connector(Signal.LOGS, ["logs/a"], table=[{"pipelines": ["logs/a"], **route}])
