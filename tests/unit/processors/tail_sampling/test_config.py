"""Which configurations are accepted and which are refused, with the key that is wrong."""

import pytest
from pydantic import ValidationError

from processors.tail_sampling.config import TailSamplingConfig

ALWAYS = {"name": "a", "type": "always_sample"}


def one(kind, **content):
    return {"policies": [{"name": "p", "type": kind, kind: content}]}


def test_defaults_are_the_collectors():
    """Every key has the Collector's default."""
    config = TailSamplingConfig(policies=[ALWAYS])
    assert (config.decision_wait, config.decision_wait_after_root_received, config.num_traces) == (30, 0, 50_000)
    assert not any((config.block_on_overflow, config.sample_on_first_match, config.drop_pending_traces_on_shutdown))
    assert (config.expected_new_traces_per_sec, config.maximum_trace_size_bytes, config.sampling_strategy) == (
        0,
        0,
        "trace-complete",
    )
    assert (config.decision_cache.sampled_cache_size, config.decision_cache.non_sampled_cache_size) == (0, 0)


STRING = {"key": "k", "values": ["v"]}
REFUSED = [
    ({}, ("policies",), "required"),
    ({"policies": []}, ("policies",), "at least one"),
    ({"policies": [ALWAYS], "num_traces": 0}, ("num_traces",), "greater than or equal to 1"),
    ({"policies": [ALWAYS], "decision_wait": "-1s"}, ("decision_wait",), "greater than or equal to 0"),
    ({"policies": [ALWAYS], "maximum_trace_size_bytes": -1}, ("maximum_trace_size_bytes",), "greater"),
    (
        {"policies": [ALWAYS], "decision_cache": {"sampled_cache_size": -1}},
        ("decision_cache", "sampled_cache_size"),
        "greater",
    ),
    ({"policies": [ALWAYS], "sampling_strategy": "later"}, ("sampling_strategy",), "trace-complete"),
    ({"policies": [ALWAYS], "typo": 1}, ("typo",), "not permitted"),
    ({"policies": [ALWAYS, ALWAYS]}, (), "duplicate policy name 'a'"),
    ({"policies": [{"type": "always_sample"}]}, ("policies", 0, "name"), "required"),
    ({"policies": [{"name": "", "type": "always_sample"}]}, ("policies", 0, "name"), "at least 1 character"),
    ({"policies": [{"name": "p"}]}, ("policies", 0, "type"), "required"),
    (
        {"policies": [{"name": "p", "type": "latncy"}]},
        ("policies", 0),
        "unknown sampling policy type 'latncy' here; expected one of always_sample, latency",
    ),
    ({"policies": [{"name": "p", "type": "latency"}]}, ("policies", 0), "write latency:"),
    (
        {"policies": [{"name": "p", "type": "always_sample", "and_": {"and_sub_policy": [ALWAYS]}}]},
        ("policies", 0, "and_"),
        "not permitted",
    ),
    (one("latency", threshold_ms=-1), ("policies", 0, "latency", "threshold_ms"), "greater"),
    (
        one("latency", threshold_ms=10, upper_threshold_ms=10),
        ("policies", 0, "latency"),
        "upper_threshold_ms 10 must be above threshold_ms 10",
    ),
    (one("numeric_attribute", key="k"), ("policies", 0, "numeric_attribute"), "expected min_value, max_value or both"),
    (one("numeric_attribute", min_value=1), ("policies", 0, "numeric_attribute", "key"), "required"),
    (
        one("numeric_attribute", key="k", min_value=2, max_value=1),
        ("policies", 0, "numeric_attribute"),
        "min_value 2 is above max_value 1",
    ),
    (one("probabilistic", sampling_percentage=-1), ("policies", 0, "probabilistic", "sampling_percentage"), "greater"),
    (
        one("probabilistic", sampling_percentage=float("nan")),
        ("policies", 0, "probabilistic", "sampling_percentage"),
        "finite",
    ),
    (one("status_code", status_codes=[]), ("policies", 0, "status_code", "status_codes"), "at least one"),
    (one("status_code", status_codes=["error"]), ("policies", 0, "status_code", "status_codes", 0), "'ERROR'"),
    (one("string_attribute", key="k", values=[]), ("policies", 0, "string_attribute", "values"), "at least one"),
    (one("string_attribute", key="", values=["a"]), ("policies", 0, "string_attribute", "key"), "at least 1"),
    (
        one("string_attribute", key="k", values=["("], enabled_regex_matching=True),
        ("policies", 0, "string_attribute"),
        "values: invalid pattern '('",
    ),
    (one("trace_state", key="k"), ("policies", 0, "trace_state", "values"), "required"),
    (one("rate_limiting"), ("policies", 0, "rate_limiting"), "expected spans_per_second"),
    (one("bytes_limiting"), ("policies", 0, "bytes_limiting"), "expected bytes_per_second"),
    (one("span_count", min_spans=5, max_spans=2), ("policies", 0, "span_count"), "max_spans 2 is below min_spans 5"),
    (one("boolean_attribute"), ("policies", 0, "boolean_attribute", "key"), "required"),
    (one("ottl_condition"), ("policies", 0, "ottl_condition"), "at least one condition"),
    (one("ottl_condition", span=["name =="]), ("policies", 0, "ottl_condition", "span"), "name =="),
    (one("ottl_condition", span=["nosuch == 1"]), ("policies", 0, "ottl_condition", "span"), "nosuch"),
    (one("ottl_condition", spanevent=["NoSuch(name)"]), ("policies", 0, "ottl_condition", "spanevent"), "NoSuch"),
    (
        one("ottl_condition", span=["true"], error_mode="loud"),
        ("policies", 0, "ottl_condition", "error_mode"),
        "'ignore'",
    ),
    (one("and", and_sub_policy=[]), ("policies", 0, "and", "and_sub_policy"), "at least one"),
    (
        one("and", and_sub_policy=[{"type": "composite"}]),
        ("policies", 0, "and", "and_sub_policy", 0),
        "unknown sampling policy type 'composite' here",
    ),
    (one("not"), ("policies", 0, "not", "not_sub_policy"), "required"),
    (one("not", not_sub_policy={"type": "and"}), ("policies", 0, "not", "not_sub_policy"), "'and' here"),
    (one("drop", drop_sub_policy=[]), ("policies", 0, "drop", "drop_sub_policy"), "at least one"),
    (
        one("composite", composite_sub_policy=[ALWAYS]),
        ("policies", 0, "composite", "max_total_spans_per_second"),
        "required",
    ),
    (
        one("composite", max_total_spans_per_second=0, composite_sub_policy=[ALWAYS]),
        ("policies", 0, "composite", "max_total_spans_per_second"),
        "greater",
    ),
    (
        one("composite", max_total_spans_per_second=1, composite_sub_policy=[ALWAYS, ALWAYS]),
        ("policies", 0, "composite"),
        "duplicate policy name 'a'",
    ),
    (
        one("composite", max_total_spans_per_second=1, composite_sub_policy=[ALWAYS], policy_order=["b"]),
        ("policies", 0, "composite"),
        "policy_order: no policy of composite_sub_policy is named 'b'",
    ),
    (
        one(
            "composite", max_total_spans_per_second=1, composite_sub_policy=[ALWAYS], rate_allocation=[{"policy": "b"}]
        ),
        ("policies", 0, "composite"),
        "rate_allocation: no policy",
    ),
    (
        one(
            "composite",
            max_total_spans_per_second=1,
            composite_sub_policy=[ALWAYS],
            rate_allocation=[{"policy": "a", "percent": 101}],
        ),
        ("policies", 0, "composite", "rate_allocation", 0, "percent"),
        "less than or equal to 100",
    ),
    (
        {**one("rate_limiting", spans_per_second=1), "sampling_strategy": "span-ingest"},
        (),
        "span-ingest cannot be used with a stateful policy such as 'p': rate_limiting",
    ),
    (
        {
            **one("not", not_sub_policy={"type": "latency", "latency": {"upper_threshold_ms": 5}}),
            "sampling_strategy": "span-ingest",
        },
        (),
        "upper_threshold_ms",
    ),
    (
        {
            **one("and", and_sub_policy=[{"type": "span_count", "span_count": {"max_spans": 5}}]),
            "sampling_strategy": "span-ingest",
        },
        (),
        "max_spans",
    ),
]


@pytest.mark.parametrize(("written", "where", "message"), REFUSED)
def test_mistakes_are_refused_with_their_key(written, where, message):
    """There is one error, at the right place, that says what to do."""
    with pytest.raises(ValidationError) as caught:
        TailSamplingConfig.model_validate(written)
    (error,) = caught.value.errors()
    assert error["loc"] == where
    assert message in error["msg"]


def test_budgets_of_a_composite_are_rounded_down_as_in_the_collector():
    """``percent`` is of the total; 0 is an equal share; a policy that is not listed gets nothing."""
    subs = [{**ALWAYS, "name": name} for name in "abc"]
    shares = [{"policy": "a", "percent": 33}, {"policy": "b"}]
    config = TailSamplingConfig.model_validate(
        one("composite", max_total_spans_per_second=101, composite_sub_policy=subs, rate_allocation=shares)
    )
    assert config.policies[0].composite.allocations() == (33, 33, 0)


def test_settings_of_another_type_are_ignored():
    """As in the Collector, but they still have to be valid."""
    TailSamplingConfig.model_validate({"policies": [{**ALWAYS, "latency": {"threshold_ms": 5}}]})
    with pytest.raises(ValidationError):
        TailSamplingConfig.model_validate({"policies": [{**ALWAYS, "latency": {"threshold_ms": "x"}}]})
