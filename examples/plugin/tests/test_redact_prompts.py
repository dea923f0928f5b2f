"""Behaviour of the processor."""

import pytest

from collector.model import EMPTY_CONTEXT, LogsBuilder, TracesBuilder
from collector.testing import RecordingTelemetry, make, traces
from tailrace_example_plugin.redact_prompts import RedactPromptsConfig, factory

KEY = "gen_ai.input.messages"


def prompts(*values):
    """Log records with one prompt each; None for a record without one."""
    builder = LogsBuilder(EMPTY_CONTEXT)
    scope = builder.scope(builder.resource({"service.name": "embedding-api"}))
    attributes = [{"model": "bge-m3"} | ({} if value is None else {KEY: value}) for value in values]
    builder.records(scope, times=[1] * len(values), bodies="embedded", attributes=attributes)
    return builder.build()


def redact(batch, **config):
    """The batch after a processor with that configuration."""
    return make(factory, RedactPromptsConfig(**config), signals={batch.signal}).transform(batch)


def test_text_is_replaced_by_its_length():
    """Only the listed attributes change; records without them stay as they are."""
    result = redact(prompts("who are you?", None, "hello"))
    assert result.attribute(KEY).text.to_list() == ["[redacted: 12 characters]", None, "[redacted: 5 characters]"]
    assert result.attribute("model").text.to_list() == ["bge-m3"] * 3
    assert b"who are you?" not in result.wire


def test_other_kinds_of_values_are_redacted_too():
    """A list of messages, a number, an empty value: nothing under the key is passed on."""
    result = redact(prompts([{"role": "user", "content": "secret"}], 4711, ""))
    assert all(text.startswith("[redacted: ") for text in result.attribute(KEY).text.to_list())
    assert b"secret" not in result.wire


def test_span_events_are_redacted():
    """Prompts are often recorded as events."""
    builder = TracesBuilder()
    scope = builder.scope(builder.resource())
    builder.spans(
        scope,
        names="embed",
        trace_ids=[[1, 2]],
        span_ids=[3],
        start_times=[1],
        end_times=[2],
        events=[[{"name": "gen_ai.choice", "time_unix_nano": 1, "attributes": {KEY: "secret"}}]],
    )
    result = redact(builder.build())
    assert result.attribute(KEY, "events").text.to_list() == ["[redacted: 6 characters]"]


def test_fingerprints_are_equal_for_equal_prompts_only():
    """They depend on the key, so nobody can compute them from guesses."""
    first, second, again = (
        redact(prompts("a", "b", "a"), replacement="fingerprint", fingerprint_key="k").attribute(KEY).text.to_list()
    )
    assert first == again != second
    (other,) = redact(prompts("a"), replacement="fingerprint", fingerprint_key="other").attribute(KEY).text.to_list()
    assert other != first


def test_fingerprints_require_a_key():
    """A wrong configuration is refused when it is loaded."""
    with pytest.raises(ValueError, match="fingerprint_key: required"):
        RedactPromptsConfig(replacement="fingerprint")


def test_delete_removes_the_attribute():
    """The other attributes stay."""
    result = redact(prompts("hello"), replacement="delete")
    assert not result.attribute(KEY).present.any()
    assert result.attribute("model").present.all()


def test_a_batch_without_prompts_is_passed_on_as_it_is():
    """Nothing is copied, nothing is counted."""
    batch = traces(spans=20)
    assert redact(batch) is batch


def test_redacted_values_are_counted():
    """The metric counts attribute values."""
    telemetry = RecordingTelemetry()
    batch = prompts("a", None, "b")
    make(factory, signals={batch.signal}, telemetry=telemetry).transform(batch)
    assert telemetry.value("tailrace_redact_prompts_values") == 2
