"""The processor ``transform``: configuration, error modes, groups, losses, limits."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from collector.api import PermanentError
from collector.model import Logs, LogsBuilder, Signal
from collector.ottl.all_editors import EDITORS
from collector.ottl.functions import FUNCTIONS
from collector.ottl.statements import compile_group
from collector.testing import FakeAdmission, FakeHost, check_component, make_settings
from collector.testing import batch as make_batch
from processors.transform import factory
from processors.transform.config import TransformConfig


def make(signal, **config):
    settings = make_settings(factory, signals={signal})
    return factory.create(settings, TransformConfig.model_validate(config)), settings


def transformed(signal, batch, **config):
    return make(signal, **config)[0].transform(batch)


def logs(*bodies, **fields):
    builder = LogsBuilder()
    scope = builder.scope(builder.resource({"service.name": "shop"}), "example")
    builder.records(scope, times=list(range(len(bodies))), bodies=list(bodies), **fields)
    return builder.build()


def test_readme_lists_all_functions():
    """Every editor and converter is in the README with its parameters."""
    text = (Path(__file__).parents[4] / "processors/transform/README.md").read_text(encoding="utf-8")
    for name, function in {**EDITORS, **FUNCTIONS}.items():
        parameters = ", ".join(f"[{p.name}]" if p.optional else p.name for p in function.parameters)
        assert f"`{name}({parameters})`" in text


async def test_factory_keeps_the_contract():
    """The component contract holds and the README's examples are valid."""
    await check_component(factory)


def test_without_statements_the_batch_passes_as_it_is():
    """A signal without statements is not touched, nor is a batch on which nothing changes."""
    batch = make_batch(Signal.TRACES)
    assert transformed(Signal.TRACES, batch, log_statements=['set(log.body, "x")']) is batch
    assert transformed(Signal.TRACES, batch, trace_statements=['set(span.name, "x") where false']) is batch


def test_statements_run_in_order_and_see_changes():
    """Each statement reads what those before it wrote; a condition selects its rows."""
    out = transformed(
        Signal.LOGS,
        logs("one", "two", "one"),
        log_statements=[
            'set(log.attributes["copy"], log.body)',
            'set(log.body, "three") where log.attributes["copy"] == "one"',
            'delete_key(log.attributes, "copy") where log.body == "three"',
        ],
    )
    assert out.field("body").text.to_list() == ["three", "two", "three"]
    assert out.attribute("copy").text.to_list() == [None, "two", None]


def test_groups_have_conditions_contexts_and_error_modes():
    """A group applies where one of its conditions holds, in its own context."""
    out = transformed(
        Signal.LOGS,
        logs("one", "two"),
        log_statements=[
            {"context": "resource", "statements": ['set(attributes["team"], "core")']},
            {"conditions": ['log.body == "two"'], "statements": ['set(log.severity_text, "WARN")']},
            {"context": "LOG", "conditions": [], "error_mode": "silent", "statements": ["set(severity_number, 13)"]},
        ],
    )
    assert out.attribute("team", "resources").text.to_list() == ["core"]
    assert out.field("severity_text").fill("").to_list() == ["", "WARN"]
    assert out.field("severity_number").tolist() == [13, 13]


def test_records_that_write_to_their_resource_see_each_others_changes():
    """Of several records the last write remains, and a record reads what the one before it wrote, as in Go."""
    statements = [
        'set(resource.attributes["count"], 0) where resource.attributes["count"] == nil',
        'set(resource.attributes["count"], resource.attributes["count"] + 1)',
        'set(log.attributes["number"], resource.attributes["count"])',
    ]
    out = transformed(Signal.LOGS, logs("a", "b", "c"), log_statements=statements)
    assert out.attribute("number").int.tolist() == [1, 2, 3]
    assert out.attribute("count", "resources").int.tolist() == [3]


def test_many_records_that_rewrite_a_text_of_their_resource():
    """What each record makes of the text that the one before it wrote does not pile up."""
    statements = [
        'set(log.cache["seen"], Concat([resource.attributes["seen"], log.body], ""))',
        'set(log.cache["seen"], Substring(log.cache["seen"], 1, 3)) where Len(log.cache["seen"]) > 3',
        'set(resource.attributes["seen"], log.cache["seen"])',
        'set(resource.schema_url, log.cache["seen"])',
        "set(log.severity_text, resource.schema_url)",
    ]
    out = transformed(Signal.LOGS, logs(*[str(number % 10) for number in range(60)]), log_statements=statements)
    texts = out.field("severity_text").to_list()
    assert texts[-3:] == ["567", "678", "789"]
    assert out.field("schema_url", "resources").to_list() == ["789"]


@pytest.mark.parametrize(
    ("statements", "is_shared"),
    [
        (['set(resource.attributes["a"], log.body)'], False),
        (['set(resource.attributes["a"], log.body)', 'set(resource.attributes["b"], log.body)'], False),
        (['delete_key(resource.attributes, "a")', 'keep_keys(resource.attributes, ["b"])'], False),
        (['delete_key(resource.attributes, "a")', 'set(log.body, resource.attributes["b"])'], True),
        (["delete_key(resource.attributes, log.body)"], True),
        (['set(resource.attributes["a"], 1)', 'delete_key(resource.attributes, "a")'], True),
        (['set(resource.attributes["a"], 1) where resource.attributes["a"] == nil'], True),
        (['set(log.attributes["a"], resource.attributes["a"])'], False),
    ],
)
def test_rows_are_taken_one_after_the_other_only_where_they_see_each_other(statements, is_shared):
    """Statements that write above their rows run on all rows at once if no row can see what another one wrote."""
    group = compile_group(statements, Signal.LOGS, context="log")
    assert (group.shared_table == "resources") == is_shared
    conditions = ['resource.attributes["a"] == nil']
    group = compile_group(['set(resource.attributes["a"], 1)'], Signal.LOGS, context="log", conditions=conditions)
    assert group.shared_table == "resources"


def test_the_cache_is_of_one_record_and_one_group():
    """What one record or group puts into the cache, another does not see."""
    out = transformed(
        Signal.LOGS,
        logs('{"a": 1}', "plain"),
        log_statements=[
            {
                "statements": [
                    'merge_maps(log.cache, ParseJSON(log.body), "upsert") where IsMatch(log.body, "^{")',
                    'set(log.attributes["a"], log.cache["a"])',
                ]
            },
            {"statements": ['set(log.attributes["late"], log.cache["a"])']},
        ],
    )
    assert out.attribute("a").double.tolist() == [1.0, 0.0]
    assert not out.attribute("late").present.any()


def test_ignored_errors_are_counted_and_explained_without_values():
    """A failing statement leaves its rows; the log names statement, position and types, never the data."""
    statement = 'set(log.attributes["n"], ParseJSON(log.body))'
    processor, settings = make(Signal.LOGS, log_statements=[statement, 'set(log.attributes["m"], 1)'])
    out = processor.transform(logs("secret", '{"a": 1}'))
    assert out.attribute("n").present.tolist() == [False, True]
    assert out.attribute("m").present.all()
    counted = settings.telemetry.value(
        "tailrace_transform_failed_statements", transform=str(settings.id), statement=statement
    )
    assert counted == 1
    (event,) = settings.telemetry.log.of_level("warning")
    assert event.fields["reason"] == "column 26: ParseJSON failed, called with (a string)"
    assert "secret" not in str(event)


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (
            "set(log.severity_text, log.body)\n  where log.severity_number + log.body > 1",
            "line 2, column 9: + failed, called with (an int, a string)",
        ),
        ('set(log.attributes["n"], log.body["key"])', "column 26: the keys of body do not fit its value"),
        ("set(log.severity_number, log.body)", "column 1: set failed, called with (an int, a string)"),
        (
            'set(log.attributes["n"], Concat([Int(log.body[0]), "x"], ""))',
            "column 38: the keys of body do not fit its value",
        ),
    ],
)
def test_errors_name_the_innermost_fault(statement, reason):
    """The position is that of the call, sum or path that failed, not of the statement."""
    processor, settings = make(Signal.LOGS, log_statements=[statement])
    processor.transform(logs("text"))
    (event,) = settings.telemetry.log.of_level("warning")
    assert event.fields["reason"] == reason


def test_silent_errors_are_only_counted():
    """Nothing is logged with the error mode silent."""
    processor, settings = make(
        Signal.LOGS, error_mode="silent", log_statements=['set(log.attributes["n"], ParseJSON(log.body))']
    )
    processor.transform(logs("secret"))
    assert not settings.telemetry.log.events


def test_propagated_errors_refuse_the_batch():
    """With the error mode propagate the batch is refused, and the message says what failed."""
    processor, _ = make(
        Signal.LOGS, error_mode="propagate", log_statements=['set(log.attributes["n"], ParseJSON(log.body))']
    )
    with pytest.raises(PermanentError, match=r"column 26: ParseJSON failed, called with \(a string\)"):
        processor.transform(logs("secret"))


def test_added_metrics_run_through_the_statements_too():
    """A metric made by a statement is processed by the whole group, and endless copying ends."""
    batch = make_batch(Signal.METRICS)
    count = batch.table("metrics").row_count
    processor, settings = make(Signal.METRICS, metric_statements=['copy_metric(name="copy") where metric.name != ""'])
    assert processor.transform(batch).table("metrics").row_count > count
    assert any("16 times" in str(event) for event in settings.telemetry.log.of_level("warning"))
    out = transformed(
        Signal.METRICS,
        batch,
        metric_statements=[
            'copy_metric(name="copy") where metric.name != "copy"',
            'set(metric.unit, "seen") where metric.name == "copy"',
        ],
    )
    names, units = out.field("name", "metrics").to_list(), out.field("unit", "metrics").fill("").to_list()
    assert len(names) == 2 * count
    assert {unit for name, unit in zip(names, units, strict=True) if name == "copy"} == {"seen"}


def test_growth_of_a_batch_is_bounded():
    """Statements that would multiply a large text fail instead of filling the memory."""
    builder = LogsBuilder()
    scope = builder.scope(builder.resource({"big": "x" * 1_000_000}), "example")
    builder.records(scope, times=list(range(200)), bodies=["a"] * 200)
    processor, settings = make(
        Signal.LOGS, log_statements=['set(log.attributes["big"], resource.attributes["big"])', 'set(log.body, "b")']
    )
    out = processor.transform(builder.build())
    assert out.size_bytes < 2_000_000
    assert set(out.field("body").text.to_list()) == {"b"}
    assert settings.telemetry.log.of_level("warning")


@pytest.mark.parametrize(("limit_bytes", "is_written"), [(100_000_000, False), (500_000_000, True)])
async def test_the_memory_budget_bounds_growth(limit_bytes, is_written):
    """What statements add is reserved while the batch is changed; what the budget does not have fails its rows."""
    builder = LogsBuilder()
    scope = builder.scope(builder.resource({"big": "x" * 1_000_000}), "example")
    builder.records(scope, times=list(range(100)), bodies=["a"] * 100)
    processor, settings = make(
        Signal.LOGS, log_statements=['set(log.attributes["big"], resource.attributes["big"])', 'set(log.body, "b")']
    )
    host = FakeHost(admission=FakeAdmission(limit_bytes))
    await processor.start(host)
    out = processor.transform(builder.build())
    assert (out.size_bytes > 100_000_000) == is_written
    assert bool(settings.telemetry.log.of_level("warning")) != is_written
    assert set(out.field("body").text.to_list()) == {"b"}
    assert host.admission.used_bytes == 0
    await processor.shutdown()


def test_values_do_not_nest_without_end():
    """A value that would be nested deeper than receivers accept is an error of the statement."""
    statements = ['set(log.attributes["a"], {"b": log.attributes["a"]})'] * 60
    out = transformed(Signal.LOGS, logs("x"), log_statements=['set(log.attributes["a"], 1)', *statements])
    assert Logs.from_wire(out.wire).item_count == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"log_statements": ["set(body, 1)"]}, "the context cannot be inferred"),
        ({"log_statements": ["set(log.body, name)"]}, "the path 'name' must start with its context: write log.name"),
        ({"log_statements": ["set(log.body)"]}, "set takes (target, value)"),
        ({"log_statements": ["sett(log.body, 1)"]}, "unknown editor sett; did you mean set?"),
        ({"log_statements": ["Set(log.body, 1)"]}, "a statement starts with an editor"),
        ({"log_statements": ["set(log.body, 1) where"]}, "unexpected end of the statement"),
        ({"log_statements": ["set(1, log.body)"]}, "expected a path, which the editor can change"),
        ({"log_statements": ["set(log.body, resource.cache)"]}, "can only be used in the context 'resource'"),
        ({"log_statements": ["set(span.name, 1)"]}, "'span' is not a context of logs"),
        ({"log_statements": [{"context": "span", "statements": ["set(name, 1)"]}]}, "is not a context of logs"),
        ({"log_statements": [{"context": "log", "statements": []}]}, "the list of statements is empty"),
        ({"log_statements": ['limit(log.attributes, 1, ["a", "b"])']}, "less than the number of priority keys"),
        ({"log_statements": ['replace_pattern(log.body, "[", "")']}, "replace_pattern: invalid pattern"),
        ({"log_statements": ["set(log.body, 1)", {"context": "log", "statements": ["set(body, 1)"]}]}, "not both"),
        ({"metric_statements": ["convert_sum_to_gauge()"]}, "the context cannot be inferred"),
        ({"profile_statements": ["set(x, 1)"]}, "profiles are not supported"),
        ({"flatten_data": True}, "flatten_data is not supported"),
        ({"error_mode": "never"}, "error_mode"),
    ],
)
def test_wrong_configuration_is_refused(config, message):
    """Invalid configurations are refused with a message that states the fault."""
    with pytest.raises(ValidationError) as caught:
        TransformConfig.model_validate(config)
    assert message in str(caught.value)
