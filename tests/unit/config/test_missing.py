"""What remains of a configuration without the components that do not exist here."""

from itertools import chain, combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.api import ComponentKind, Factory, Stability
from collector.model import Signal
from collector.registry import Registry
from config import ConfigErrors, examine, load
from config.blocks import ComponentConfig

FILE = """
receivers:
  otlp: {protocols: {grpc: }}
  fluentforward: {include: [/var/log/x]}
processors:
  batch:
  k8sattributes:
exporters:
  debug:
  clickhouse: {endpoint: x}
service:
  pipelines:
    traces: {receivers: [otlp], processors: [k8sattributes, batch], exporters: [debug, clickhouse]}
    logs: {receivers: [fluentforward], exporters: [debug]}
    metrics: {receivers: [otlp], exporters: [debug]}
"""


def examined(text, registry):
    return examine(["f.yaml"], (), registry, environ={}, read=lambda path: text)


def remaining(text, registry):
    """The configuration of ``text`` without what does not exist."""
    return load(["f.yaml"], (), registry, skip_missing=True, environ={}, read=lambda path: text)


def lists(config):
    """What each pipeline lists, as texts."""
    return {
        name: [[str(each) for each in ids] for ids in (pipeline.receivers, pipeline.processors, pipeline.exporters)]
        for name, pipeline in config.service.pipelines.items()
    }


def test_pipelines_run_without_what_is_missing(registry):
    """A missing processor or one of several exporters is left out; a pipeline without a receiver does not run."""
    config = remaining(FILE, registry)
    assert lists(config) == {
        "traces": [["otlp"], ["batch"], ["debug"]],
        "metrics": [["otlp"], [], ["debug"]],
    }
    assert [(error.path, error.line) for error in config.left_out] == [
        (("receivers", "fluentforward"), 4),
        (("processors", "k8sattributes"), 7),
        (("exporters", "clickhouse"), 10),
    ]
    assert [str(finding) for finding in config.changed_pipelines] == [
        (
            "f.yaml:13:5: service::pipelines::traces: the pipeline runs without processors [k8sattributes] and "
            "exporters [clickhouse]; its data passes unchanged where a processor is left out"
        ),
        "f.yaml:14:5: service::pipelines::logs: the pipeline does not run because none of its receivers is available",
    ]
    assert config.warnings == ()


@pytest.mark.parametrize("processor", ["redaction_of_ours", "metrics_generator", "logstransform", "unroll"])
def test_a_pipeline_does_not_run_without_a_processor_that_may_protect_data(registry, processor):
    """Of types that nobody knows, and of those that can remove something; the other pipelines run."""
    text = FILE.replace("k8sattributes", processor).replace("[fluentforward]", "[otlp]")
    config = remaining(text, registry)
    assert list(lists(config)) == ["logs", "metrics"]
    assert str(config.changed_pipelines[0]).startswith(
        "f.yaml:13:5: service::pipelines::traces: the pipeline does not run because without processors "
        f"[{processor}] data may leave that should not"
    )
    forced = load(
        ["f.yaml"], (), registry, skip_missing=True, allow_unprotected=True, environ={}, read=lambda path: text
    )
    assert list(lists(forced)) == ["traces", "logs", "metrics"]


def test_missing_components_stay_errors_without_the_option(registry):
    """Nothing is left out unless it is asked for, and the examination has both results."""
    with pytest.raises(ConfigErrors) as caught:
        load(["f.yaml"], (), registry, environ={}, read=lambda path: FILE)
    assert len(caught.value.errors) == 3
    found = examined(FILE, registry)
    assert (found.config, found.errors) == (None, caught.value.errors)
    assert found.without_missing.remainder.running == ("traces", "metrics")
    assert found.without_missing.remainder.pipeline_count == 3
    assert found.without_missing.examination.config is not None


def test_nothing_is_left_out_of_a_complete_configuration(registry):
    """If every component exists, the option changes nothing."""
    text = FILE.replace("k8sattributes", "tail").replace(
        "fluentforward: {include: [/var/log/x]}", "otlp/x: {protocols: }"
    )
    text = text.replace("fluentforward", "otlp/x").replace("clickhouse: {endpoint: x}", "debug/2:")
    text = text.replace("clickhouse", "debug/2")
    assert examined(text, registry).without_missing is None
    config = remaining(text, registry)
    assert (config.left_out, config.changed_pipelines, len(config.service.pipelines)) == ((), (), 3)


def test_other_errors_remain_errors(registry):
    """Leaving out what is missing does not forgive a mistake in what exists; only the mistake is reported then."""
    text = FILE.replace("grpc: }", "grcp: }")
    with pytest.raises(ConfigErrors, match="unknown key 'grcp'") as caught:
        remaining(text, registry)
    assert len(caught.value.errors) == 1


def test_no_pipeline_remains(registry):
    """If nothing can run, the errors are those about the missing components."""
    text = """
receivers: {fluentforward: }
exporters: {debug: }
service: {pipelines: {logs: {receivers: [fluentforward], exporters: [debug]}}}
"""
    with pytest.raises(ConfigErrors, match="the receiver type 'fluentforward' is part of the OpenTelemetry Collector"):
        remaining(text, registry)


AUTHENTICATED = """
receivers:
  otlp: {protocols: {grpc: }}
  otlp/secured: {protocols: {http: {auth: {authenticator: oidc}}}}
exporters:
  otlp_grpc: {endpoint: "h:1", sending_queue: {storage: nosuch_storage}}
  debug:
extensions: {oidc: , nosuch_storage: }
service:
  extensions: [oidc, nosuch_storage]
  pipelines:
    traces: {receivers: [otlp, otlp/secured], exporters: [otlp_grpc, debug]}
    logs: {receivers: [otlp/secured], exporters: [debug]}
"""


def test_no_component_runs_without_an_extension_that_it_refers_to(registry):
    """A server whose authentication is missing does not run openly, nor a queue without its storage."""
    config = remaining(AUTHENTICATED, registry)
    assert lists(config) == {"traces": [["otlp"], [], ["debug"]]}
    assert config.service.extensions == ()
    messages = [str(error) for error in config.left_out]
    assert (
        "f.yaml:4:3: receivers::otlp/secured: the receiver is left out because it refers to the extension 'oidc' "
        "(protocols::http::auth::authenticator)"
    ) in messages
    assert any("extension 'nosuch_storage' (sending_queue::storage)" in message for message in messages)


def test_an_extension_that_refers_to_a_missing_one_is_left_out(registry):
    """Dependencies are followed through several extensions."""
    text = """
receivers: {otlp: {protocols: {http: {auth: {authenticator: basicauth}}}}, otlp/open: {protocols: {http: }}}
exporters: {debug: }
extensions: {oidc: , basicauth: {authenticator: oidc}}
service:
  extensions: [oidc, basicauth]
  pipelines: {traces: {receivers: [otlp, otlp/open], exporters: [debug]}}
"""
    config = remaining(text, registry)
    assert lists(config) == {"traces": [["otlp/open"], [], ["debug"]]}
    assert config.service.extensions == ()


def test_connectors_follow_the_pipelines(registry):
    """A pipeline that is fed by one that does not run stops as well; a connector that leads nowhere is taken out."""
    text = """
receivers: {otlp: {protocols: {grpc: }}, fluentforward: }
exporters: {debug: , clickhouse: }
connectors: {forward: , forward/2: , datadog: }
service:
  pipelines:
    logs/in: {receivers: [fluentforward], exporters: [forward]}
    logs/out: {receivers: [forward], exporters: [debug]}
    traces/in: {receivers: [otlp], exporters: [forward/2, debug]}
    traces/out: {receivers: [forward/2], exporters: [clickhouse]}
    traces/apm: {receivers: [otlp], exporters: [datadog, debug]}
    metrics: {receivers: [datadog, otlp], exporters: [debug]}
"""
    config = remaining(text, registry)
    assert lists(config) == {
        "traces/in": [["otlp"], [], ["debug"]],
        "traces/apm": [["otlp"], [], ["debug"]],
        "metrics": [["otlp"], [], ["debug"]],
    }
    assert config.connectors == {}


def test_pipelines_of_an_unsupported_signal_are_left_out(registry):
    """The Collector's profiles do not keep the other pipelines from running."""
    text = """
receivers: {otlp: {protocols: {grpc: }}}
exporters: {debug: }
service:
  pipelines:
    traces: {receivers: [otlp], exporters: [debug]}
    profiles/x: {receivers: [otlp], exporters: [debug]}
"""
    config = remaining(text, registry)
    assert list(config.service.pipelines) == ["traces"]
    (finding,) = config.changed_pipelines
    assert "the signal 'profiles' is not supported yet" in str(finding)


def test_what_was_unused_before_is_still_reported(registry):
    """A component that no pipeline uses causes its warning; one that only lost its pipelines does not."""
    text = FILE.replace("  debug:\n", "  debug:\n  debug/logs:\n  debug/unused:\n")
    text = text.replace("[fluentforward], exporters: [debug]", "[fluentforward], exporters: [debug/logs]")
    warnings = [warning.path for warning in remaining(text, registry).warnings]
    assert warnings == [("exporters", "debug/unused")]


def _factory(kind, component_type):
    return Factory(
        component_type=component_type,
        kind=kind,
        config_type=ComponentConfig,
        create=lambda settings, config: None,
        stability=Stability.BETA,
        signals=frozenset(Signal),
        connects=frozenset((each, each) for each in Signal) if kind is ComponentKind.CONNECTOR else frozenset(),
    )


HERE = [_factory(kind, f"here_{str(kind)[0]}") for kind in ComponentKind]
EVERYWHERE = [*HERE, *(_factory(kind, f"gone_{str(kind)[0]}") for kind in ComponentKind)]
CONNECTORS = ["here_c", "here_c/2", "gone_c"]


@st.composite
def _pipelines(draw):
    """Up to six pipelines of one signal, over components that exist and others that do not; valid if all existed."""
    count = draw(st.integers(1, 6))
    listed = [{"receivers": [], "processors": [], "exporters": []} for _ in range(count)]
    for connector in CONNECTORS:
        first_sink = draw(st.integers(0, count))  # connectors lead from earlier pipelines to later ones: no cycles
        sources = [each for each in listed[:first_sink] if draw(st.booleans())]
        sinks = [each for each in listed[first_sink:] if draw(st.booleans())]
        for pipelines, section in ((sources, "exporters"), (sinks, "receivers")) if sources and sinks else ():
            for pipeline in pipelines:
                pipeline[section].append(connector)
    for pipeline in listed:
        for section, letter in (("receivers", "r"), ("processors", "p"), ("exporters", "e")):
            least = 0 if pipeline[section] or section == "processors" else 1
            some = st.lists(st.sampled_from([f"here_{letter}", f"gone_{letter}"]), min_size=least, unique=True)
            pipeline[section] += draw(some)
    return {f"logs/{index}": pipeline for index, pipeline in enumerate(listed)}


def _runs(pipelines, among):
    """Whether each pipeline of ``among`` has a receiver and an exporter, counting connectors only to others of them."""

    def listed(section):
        return {each for name in among for each in pipelines[name][section]}

    def alive(ids, others):
        return any(each in ("here_r", "here_e") or (each.startswith("here_c") and each in others) for each in ids)

    return all(
        alive(pipelines[name]["receivers"], listed("exporters"))
        and alive(pipelines[name]["exporters"], listed("receivers"))
        for name in among
    )


@given(_pipelines())
def test_as_many_pipelines_run_as_can(pipelines):
    """The largest set of pipelines that can run without the missing components runs, and passes every check."""
    ids = {each for pipeline in pipelines.values() for section in pipeline.values() for each in section}
    sections = {
        str(kind): {each: {} for each in sorted(ids) if each.partition("/")[0].endswith(f"_{str(kind)[0]}")}
        for kind in (ComponentKind.RECEIVER, ComponentKind.PROCESSOR, ComponentKind.EXPORTER, ComponentKind.CONNECTOR)
    }
    text = f"yaml:{sections | {'service': {'pipelines': pipelines}}}"
    assert examine([text], (), Registry.of(EVERYWHERE), environ={}).config is not None
    found = examine([text], (), Registry.of(HERE), allow_unprotected=True, environ={})
    subsets = chain.from_iterable(combinations(pipelines, size) for size in range(len(pipelines), -1, -1))
    expected = next(subset for subset in subsets if _runs(pipelines, subset))
    if found.without_missing is None:
        assert found.config is not None
        return
    assert found.without_missing.remainder.running == expected
    if expected:
        config = found.without_missing.examination.config
        assert config is not None
        assert config.warnings == ()
        assert not any("gone" in str(each) for lists_ in lists(config).values() for ids in lists_ for each in ids)
