from typing import ClassVar

import pytest
from pydantic import Field

from collector.api import ComponentKind, Factory, Stability
from collector.model import Signal
from collector.registry import Registry
from config import ConfigErrors, examine, load
from config.blocks import ComponentConfig, Duration, Secret
from config.load import Outcome
from config.validation import parse_model
from config.yaml import Position, parse
from connectors.forward import factory as forward
from connectors.span_metrics import factory as span_metrics
from exporters.debug import factory as debug
from processors.batch import factory as batch
from processors.sampling import factory as sampling
from receivers.otlp import factory as otlp

GOOD = """
receivers:
  otlp:
    protocols:
      grpc:
      http: {endpoint: 0.0.0.0:4318}
processors:
  batch:
exporters:
  otlp_grpc:
    endpoint: backend:4317
    timeout: 1m30s
    headers: {authorization: Bearer s3cr3t}
  otlp/two: {endpoint: other:4317, sending_queue: {batch: , queue_size: 5}, tls: }
service:
  pipelines:
    traces: {receivers: [otlp], processors: [batch], exporters: [otlp_grpc, otlp/two]}
"""


def lines(text, registry, environ=None, sets=()):
    """The findings about ``text`` as shown to the user, with f.yaml as the name of the file."""
    with pytest.raises(ConfigErrors) as caught:
        load(["f.yaml"], sets, registry, environ=environ or {}, read=lambda path: text)
    return [str(error) for error in caught.value.errors]


def loaded(text, registry, environ=None, sets=()):
    return load(["f.yaml"], sets, registry, environ=environ or {}, read=lambda path: text)


def exporter(registry, body, environ=None):
    """A configuration whose exporter otlp_grpc has ``body``."""
    text = f"""
receivers: {{otlp: {{protocols: {{grpc: }}}}}}
exporters:
  otlp_grpc:
    {body}
service: {{pipelines: {{traces: {{receivers: [otlp], exporters: [otlp_grpc]}}}}}}
"""
    return lines(text, registry, environ) if registry else text


def component(config):
    """The configuration of the only exporter."""
    (only,) = config.exporters.values()
    return only.config


def test_a_good_configuration_loads_typed(registry):
    """Component ids map to typed configurations, bare keys mean defaults, and both spellings of a type are found."""
    config = loaded(GOOD, registry)
    otlp = next(iter(config.receivers.values())).config
    assert otlp.protocols.grpc.endpoint == "localhost:4317"
    assert otlp.protocols.http.endpoint == "0.0.0.0:4318"
    first, second = config.exporters.values()
    assert (first.config.timeout, str(second.id), second.factory.component_type) == (90.0, "otlp/two", "otlp_grpc")
    assert second.config.sending_queue.batch.min_size == 8192
    assert second.config.tls.insecure is False
    pipeline = config.service.pipelines["traces"]
    assert [str(each) for each in pipeline.exporters] == ["otlp_grpc", "otlp/two"]
    assert config.service.telemetry.metrics.endpoint() == ("localhost", 8888)
    assert str(config.position("exporters", "otlp_grpc", "timeout")) == "f.yaml:12:5"
    assert config.warnings == ()


def test_five_mistakes_five_positions(registry):
    """All findings are reported at once, each with file, line, column, path and a suggestion."""
    text = """\
receivers:
  otlp:
    protocols:
      grcp:
exporters:
  otlp_grpc:
    timeout: 10 s
    compression: gzp
service:
  pipelines:
    traces:
      receivers: [otlpp]
      exporters: [otlp_grpc]
      procesors: []
"""
    assert lines(text, registry) == [
        (
            "f.yaml:4:7: receivers::otlp::protocols: unknown key 'grcp' (did you mean 'grpc'?); "
            "the allowed keys are grpc, http"
        ),
        "f.yaml:7:14: exporters::otlp_grpc::timeout: '10 s' is not a valid duration (examples: 5s, 1m30s, 250ms)",
        (
            "f.yaml:8:18: exporters::otlp_grpc::compression: 'gzp' is not an allowed value (did you mean 'gzip'?); "
            "the allowed values are '' (empty), none, gzip, zstd, snappy"
        ),
        (
            "f.yaml:12:19: service::pipelines::traces::receivers: the receiver 'otlpp' is not configured "
            "(did you mean 'otlp'?); the only configured receiver is otlp"
        ),
        (
            "f.yaml:14:7: service::pipelines::traces: unknown key 'procesors' (did you mean 'processors'?); "
            "the allowed keys are receivers, processors, exporters"
        ),
    ]


def test_an_unknown_first_key_is_shown_at_its_place(registry):
    """A block mapping begins at its first key: the finding has the place of the key, not of the component."""
    text = """\
receivers:
  otlp:
    protocls: {grpc: }
exporters: {otlp_grpc: {}}
service: {pipelines: {traces: {receivers: [otlp], exporters: [otlp_grpc]}}}
"""
    assert [line.split(";")[0] for line in lines(text, registry) if "protocls" in line] == [
        "f.yaml:3:5: receivers::otlp: unknown key 'protocls' (did you mean 'protocols'?)"
    ]


@pytest.mark.parametrize(
    ("body", "finding"),
    [
        (
            'sending_queue: {num_consumers: "5"}',
            "5:36: …::sending_queue::num_consumers: expected a whole number, got '5'; write it without quotes",
        ),
        (
            "sending_queue: {num_consumers: 1.0}",
            "5:36: …::sending_queue::num_consumers: expected a whole number, got 1.0",
        ),
        ("sending_queue: {queue_size: 0}", "5:33: …::sending_queue::queue_size: the value must be at least 1, got 0"),
        (
            'sending_queue: {enabled: "true"}',
            "5:30: …::sending_queue::enabled: expected true or false, got 'true'; write it without quotes",
        ),
        ("sending_queue: {enabled: yes}", "5:30: …::sending_queue::enabled: expected true or false, got 'yes'"),
        ("sending_queue: []", "5:20: …::sending_queue: expected a mapping, got a list"),
        (
            "sending_queue: {batch: {min_size: 9, max_size: 5}}",
            "5:21: …::sending_queue::batch: max_size (5) must not be less than min_size (9)",
        ),
        ("label: 5", "5:12: …::label: expected text, got 5; write it in quotes: '5'"),
        ("label: [a]", "5:12: …::label: expected text, got a list"),
        ("ratio: 1.5", "5:12: …::ratio: the value must be at most 1, got 1.5"),
        ("ratio: x", "5:12: …::ratio: expected a number, got 'x'"),
        ("timeout: soon", "5:14: …::timeout: 'soon' is not a valid duration (examples: 5s, 1m30s, 250ms)"),
        (
            "write_buffer_size: 5XB",
            "5:24: …::write_buffer_size: '5XB' is not a valid size (examples: 4096, 64KiB, 256MiB, 1GiB)",
        ),
        ("tls: {min_version: 1.3}", None),
        ("auth: {}", "5:5: …::auth: the required key 'authenticator' is missing"),
        ("tls: {ca_fiel: x}", "5:11: …::tls: unknown key 'ca_fiel' (did you mean 'ca_file'?); the allowed keys are "),
        (
            "auth: {authenticator: a}",
            (
                "5:27: …::auth::authenticator: the extension 'a' is not listed in service::extensions; "
                "no extensions are listed"
            ),
        ),
        (
            "sending_queue: {storage: s}",
            "5:30: …::sending_queue::storage: the extension 's' is not listed in service::extensions",
        ),
    ],
)
def test_error_styles(registry, body, finding):
    """Each kind of mistake is reported in plain words at its place."""
    found = exporter(registry, body)
    assert len(found) == 1
    if finding:
        assert found[0].startswith("f.yaml:" + finding.replace("…", "exporters::otlp_grpc"))


def test_auth_position_is_that_of_its_key(registry):
    """A missing key is reported at the block that lacks it, along with the other errors of the configuration."""
    found = exporter(registry, "{auth: {}, ratio: 2}")
    assert [each.split(": ")[1] for each in found] == ["exporters::otlp_grpc::auth", "exporters::otlp_grpc::ratio"]


def test_text_of_a_variable_is_used_where_text_is_wanted(registry):
    """A variable's value is typed by YAML, but its original text reaches targets that are text."""
    environ = {"N": "0123", "T": "010", "E": "", "V": "1.2"}
    body = (
        'endpoint: "${N}"\n    label: ${E}\n    sending_queue: {queue_size: "${T}"}\n'
        '    tls: {min_version: "${V}"}\n    extra: {a: "${N}"}'
    )
    config = component(loaded(exporter(None, body), registry, environ))
    assert (config.endpoint, config.label, config.sending_queue.queue_size, config.tls.min_version) == (
        "0123",
        "",
        8,
        "1.2",
    )
    assert config.extra == {"a": 83}


def test_a_variable_that_is_not_set_is_text_or_default(registry):
    """Null from a variable: empty text where text is wanted, the default elsewhere."""
    config = component(loaded(exporter(None, "authority: ${A}\n    timeout: ${B}"), registry))
    assert (config.authority, config.timeout) == ("", 5.0)


@pytest.mark.parametrize(
    "body",
    [
        "password: [hunter2]",
        "{password: hunter2, pasword: x}",
        "headers: {authorization: [hunter2]}",
        "headers: {x: {y: hunter2}}",
        "{ratio: '${SECRET}'}",
        "{timeout: '${SECRET}'}",
        "{timeout: 'pre-${SECRET}'}",
        "{endpoint: ['http://user:hunter2@h']}",
        "{compression: 'http://user:hunter2@h'}",
        "{compression: '${SECRET}'}",
        "{write_buffer_size: '${SECRET}'}",
        "{tls: {key_pem: {hunter2: hunter2}}}",
    ],
)
def test_secrets_are_never_shown(registry, body):
    """No finding shows a secret, a variable's value, or the password in a URL."""
    found = exporter(registry, body, {"SECRET": "hunter2"})
    assert found
    assert not any("hunter2" in each for each in found)


def test_positions_survive_merging_and_substitution(registry):
    """An error names the file that won, the file a reference brought in, or the place of the reference."""
    files = {
        "a": GOOD,
        "b": "exporters:\n  otlp_grpc:\n    ratio: 7\n    timeout: ${env:T}\n    tls: ${file:tls.yaml}\n",
        "tls.yaml": "insecure: true\nca_fle: x\n",
    }
    with pytest.raises(ConfigErrors) as caught:
        load(["a", "b"], ["exporters.otlp/two.compression=zip"], registry, environ={"T": "5x"}, read=files.__getitem__)
    places = {str(error.position): error.path for error in caught.value.errors}
    assert places == {
        "b:3:12": ("exporters", "otlp_grpc", "ratio"),
        "b:4:14": ("exporters", "otlp_grpc", "timeout"),
        "tls.yaml:2:1": ("exporters", "otlp_grpc", "tls"),
        "--set exporters.otlp/two.compression": ("exporters", "otlp/two", "compression"),
    }


def factory_of(config_type):
    """The factory of an exporter ``x`` with this configuration."""
    return Factory(
        component_type="x",
        kind=ComponentKind.EXPORTER,
        config_type=config_type,
        create=lambda *_: None,
        stability=Stability.ALPHA,
        signals=frozenset(Signal),
    )


def test_numbers_for_durations_in_lists_and_unions_are_warned_about():
    """Wherever a duration may be written, a number without a unit is pointed out, except 0."""

    class Buckets(ComponentConfig):
        bounds: tuple[Duration, ...] | None = None
        by_name: dict[str, Duration] = Field(default_factory=dict)
        optional: Duration | None = None
        counts: tuple[int, ...] = ()
        mixed: tuple[int | Duration, ...] = ()

    registry = Registry.of([factory_of(Buckets)])
    text = "{bounds: [100, 2s, 0], by_name: {a: 3, b: 4s}, optional: 5, counts: [6], mixed: [7s]}"
    found = examine([f"yaml:exporters: {{x: {text}}}"], [], registry)
    assert [warning.path[2:] for warning in found.warnings if "nanoseconds" in warning.message] == [
        ("bounds", "0"),
        ("by_name", "a"),
        ("optional",),
    ]


def test_blocks_may_warn_about_valid_settings():
    """The sentence is shown at the key, also from within lists, mappings and nested blocks, once each."""

    class Inner(ComponentConfig):
        port: int = 0

        def warnings(self):
            if self.port == 1:
                yield "port", "port 1 is unusual"

    class Outer(ComponentConfig):
        inner: Inner = Inner()
        many: tuple[Inner, ...] = ()
        named: dict[str, Inner] = Field(default_factory=dict)

    registry = Registry.of([factory_of(Outer)])
    text = "{inner: {port: 1}, many: [{port: 2}, {port: 1}], named: {a: {port: 1}}}"
    found = examine([f"yaml:exporters: {{x: {text}}}"], [], registry)
    assert [
        (warning.path[2:], warning.column) for warning in found.warnings if warning.message == "port 1 is unusual"
    ] == [
        (("inner", "port"), 25),
        (("many", "1", "port"), 54),
        (("named", "a", "port"), 77),
    ]


def test_a_number_for_a_duration_is_nanoseconds(registry):
    """As in the Collector, but with a warning: the user surely meant seconds."""
    found = examine(["yaml:" + GOOD], ["exporters.otlp_grpc.timeout=7000000000"], registry, environ={})
    assert found.errors == ()
    assert next(iter(found.config.exporters.values())).config.timeout == 7.0
    assert [str(warning) for warning in found.warnings if "nanoseconds" in warning.message] == [
        (
            "--set exporters.otlp_grpc.timeout: exporters::otlp_grpc::timeout: 7000000000 has no unit and is read as "
            "nanoseconds, as in the Collector; write for example 5s or 250ms"
        )
    ]


@pytest.mark.parametrize(
    "text", ["fd00::", "token:", '{"k":1}', "[a]", "- a", "5", "null", "true", "", "a: b", "{k: $$x}", "Bearer x"]
)
def test_any_text_of_a_variable_is_text_where_text_is_wanted(text, registry):
    """Passwords, addresses and JSON may happen to be a list or a mapping in YAML; the Collector takes their text."""
    body = "{endpoint: 'a:1', headers: {whole: '${env:T}', part: 'x-${env:T}'}}"
    config = component(loaded(exporter(None, body), registry, {"T": text}))
    headers = {key: value.get_secret_value() for key, value in config.headers.items()}
    assert headers == {"whole": text.replace("$$", "$"), "part": "x-" + text.replace("$$", "$")}


def test_a_variable_that_holds_a_secret_mapping_is_not_shown(registry):
    """The text of a variable that is refused is replaced by its reference."""
    (line,) = exporter(registry, "{endpoint: 'a:1', timeout: '${env:T}'}", {"T": "{hunter2: 1}"})
    assert line == (
        "f.yaml:5:23: exporters::otlp_grpc::timeout: '${env:T}' is not a valid duration (examples: 5s, 1m30s, 250ms)"
    )


def test_notes_on_variables_come_with_the_errors(registry):
    """A variable that is not set explains what follows from it, also where only the errors are raised."""
    with pytest.raises(ConfigErrors) as caught:
        load(["yaml:" + GOOD], ["exporters.otlp_grpc.timeout=${env:NOT_SET}x"], registry, environ={})
    first, *others = str(caught.value).splitlines()
    assert "the environment variable NOT_SET is not set" in first
    assert [warning.message for warning in caught.value.warnings] == [
        "the environment variable NOT_SET is not set, so the value is null"
    ]
    assert len(others) == len(caught.value.errors) == 1
    with pytest.raises(ConfigErrors, match="OTHER is not set") as caught:
        load(["yaml:{a: '${env:OTHER}', b: '${file:/missing}'}"], (), registry, environ={})
    assert "OTHER" in str(caught.value).splitlines()[0]


def test_a_component_that_is_missing_is_reported_once(registry):
    """One line names all pipelines; no pipeline is called empty because of it."""
    text = """
receivers: {otlp: {protocols: {grpc: }}}
exporters: {debug: }
service:
  pipelines:
    traces: {receivers: [otlp], exporters: [debug, debugg]}
    traces/2: {receivers: [otpl], exporters: [debugg]}
    logs: {receivers: [otlp], exporters: [debugg]}
    metrics: {receivers: [otpl], exporters: []}
"""
    assert lines(text, registry) == [
        (
            "f.yaml:6:52: service::pipelines::traces::exporters: the exporter 'debugg' is not configured (also listed in "
            "traces/2, logs) (did you mean 'debug'?); the only configured exporter is debug"
        ),
        (
            "f.yaml:7:28: service::pipelines::traces/2::receivers: the receiver 'otpl' is not configured (also listed in "
            "metrics) (did you mean 'otlp'?); the only configured receiver is otlp"
        ),
        "f.yaml:9:5: service::pipelines::metrics: the pipeline must have at least one exporter",
    ]


def test_a_list_with_a_bad_entry_is_not_called_empty():
    """The entry is reported, and nothing else."""
    text = """
receivers: {otlp: {protocols: {grpc: }}}
processors: {attributes: {actions: [{key: a, action: isnert}]}}
exporters: {debug: }
service: {pipelines: {traces: {receivers: [otlp], processors: [attributes], exporters: [debug]}}}
"""
    (line,) = lines(text, Registry())
    assert "'isnert' is not an allowed value (did you mean 'insert'?)" in line


class _Connection(ComponentConfig):
    endpoint: str = ""
    headers: dict[str, Secret] = Field(default_factory=dict)


class _Flat(ComponentConfig):
    inline_block: ClassVar[str] = "http"

    http: _Connection = _Connection()
    namespace: str = ""


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("endpont: a", " (did you mean 'endpoint'?); the allowed keys are endpoint, headers, namespace"),
        ("{nme: a, http: {}}", "; the allowed keys are http, namespace"),
        ("http: {nme: a}", "; the allowed keys are endpoint, headers"),
    ],
)
def test_allowed_keys_are_those_that_the_user_may_write(text, allowed):
    """A component whose connection may be written with or without its block lists the keys of the form in use."""
    _, (error,) = parse_model(_Flat, parse(text, "f"), Position("f", 1, 1), ())
    assert str(error).endswith(allowed)


def test_components_of_other_distributions_are_named_as_such():
    """The user learns whose component it is."""
    text = """
receivers: {otlp: {protocols: {grpc: }}, smartagent/x: {}}
exporters: {clickhousetraces: {}}
service: {pipelines: {traces: {receivers: [otlp, smartagent/x], exporters: [clickhousetraces]}}}
"""
    assert lines(text, Registry()) == [
        (
            "f.yaml:2:42: receivers::smartagent/x: the receiver type 'smartagent' is part of Splunk's distribution of the "
            "Collector, but not of Tailrace"
        ),
        (
            "f.yaml:3:13: exporters::clickhousetraces: the exporter type 'clickhousetraces' is part of SigNoz's collector,"
            " but not of Tailrace"
        ),
    ]


def graph(registry, pipelines):
    text = f"""
receivers: {{otlp: {{protocols: {{grpc: }}}}}}
processors: {{batch: , tail: }}
exporters: {{debug: }}
connectors: {{forward: , spanmetrics: }}
service:


  pipelines:
{pipelines}
"""
    found = examine(["f.yaml"], (), registry, environ={}, read=lambda path: text)
    return [str(error) for error in found.errors]


@pytest.mark.parametrize(
    ("pipelines", "finding"),
    [
        (
            "    traces: {receivers: [otlp]}",
            "f.yaml:10:5: service::pipelines::traces: the pipeline must have at least one exporter",
        ),
        (
            "    traces: {exporters: [debug]}",
            "f.yaml:10:5: service::pipelines::traces: the pipeline must have at least one receiver",
        ),
        (
            "    traces: {receivers: [otlp], exporters: [debug], processors: [batch, batch]}",
            "f.yaml:10:73: service::pipelines::traces::processors: 'batch' is listed twice",
        ),
        (
            "    logs: {receivers: [otlp], exporters: [debug], processors: [tail]}",
            (
                "f.yaml:10:64: service::pipelines::logs::processors: the processor 'tail' does not support logs; "
                "it only supports traces"
            ),
        ),
        (
            "    traces: {receivers: [otlp], exporters: [forward]}",
            (
                "f.yaml:5:14: connectors::forward: the connector is used as an exporter in pipeline 'traces', "
                "but not as a receiver in any pipeline that it can connect to this one; it can connect logs to logs, "
            ),
        ),
        (
            (
                "    traces: {receivers: [otlp], exporters: [spanmetrics]}\n"
                "    logs: {receivers: [spanmetrics, otlp], exporters: [debug]}"
            ),
            (
                "f.yaml:5:25: connectors::spanmetrics: the connector is used as an exporter in pipeline 'traces', "
                "but not as a receiver in any pipeline that it can connect to this one; "
                "it can connect traces to metrics"
            ),
        ),
        (
            "    traces: {receivers: [otlp, forward], exporters: [forward]}",
            (
                "f.yaml:10:5: service::pipelines::traces: "
                "the connectors form a cycle: traces -> connector forward -> traces"
            ),
        ),
        (
            "    trace: {receivers: [otlp], exporters: [debug]}",
            "f.yaml:10:5: service::pipelines::trace: unknown signal 'trace' (did you mean 'traces'?)",
        ),
        (
            "    profiles: {receivers: [otlp], exporters: [debug]}",
            "f.yaml:10:5: service::pipelines::profiles: the signal 'profiles' is not supported yet",
        ),
        (
            "    traces: {receivers: otlp, exporters: [debug]}",
            (
                "f.yaml:10:25: service::pipelines::traces::receivers: expected a list of component ids, got 'otlp'; "
                "write [otlp]"
            ),
        ),
        (
            "    traces: {receivers: [5], exporters: [debug]}",
            (
                "f.yaml:10:26: service::pipelines::traces::receivers: "
                "expected a component id such as type or type/name, got 5"
            ),
        ),
        (
            "    traces: {receivers: [debug], exporters: [debug]}",
            (
                "f.yaml:10:26: service::pipelines::traces::receivers: the receiver 'debug' is not configured; "
                "'debug' is configured under exporters"
            ),
        ),
        ("    {}", "f.yaml:9:3: service::pipelines: the service must have at least one pipeline"),
    ],
)
def test_graph_checks(registry, pipelines, finding):
    """Errors of the graph are found without building anything."""
    found = graph(registry, pipelines)
    assert found[0].startswith(finding)


def test_cycles_over_several_pipelines(registry):
    """A cycle is shown pipeline by pipeline; a diamond is not a cycle."""
    cycle = """
    traces/a: {receivers: [otlp, forward/2], exporters: [forward/1]}
    traces/b: {receivers: [forward/1], exporters: [forward/2]}"""
    more = "connectors: {forward/1: , forward/2: }"
    base = (
        "receivers: {{otlp: {{protocols: {{grpc: }}}}}}\nexporters: {{debug: }}\n{more}\n"
        "service: \n  pipelines:{pipelines}\n"
    )
    found = lines(base.format(more=more, pipelines=cycle), registry)
    assert any(
        "traces/a -> connector forward/1 -> traces/b -> connector forward/2 -> traces/a" in each for each in found
    )
    diamond = """
    traces/a: {receivers: [otlp], exporters: [forward/1, forward/2]}
    traces/b: {receivers: [forward/1], exporters: [debug]}
    traces/c: {receivers: [forward/2], exporters: [debug]}"""
    loaded(base.format(more=more, pipelines=diamond), registry)


def test_ambiguous_ids(registry):
    """A connector may not have the id of an exporter."""
    text = GOOD.replace("service:", "connectors: {otlp/two: }\nservice:")
    assert any("unknown connector type" in each for each in lines(text, registry))
    assert any(
        each.startswith(
            "f.yaml:15:14: connectors::otlp/two: the id 'otlp/two' is ambiguous: the exporter at f.yaml:14:3 "
        )
        for each in lines(text, registry)
    )


def test_unknown_types(registry):
    """Types of the Collector, types of another section and unknown types are told apart."""
    text = GOOD.replace("  batch:\n", "  batch:\n  lookup: {}\n  btach: {}\n  debug: {}\n  no good: {}\n")
    *others, invalid = lines(text, registry)
    assert invalid.startswith("f.yaml:12:3: processors: ")
    assert "'no good'" in invalid
    assert others == [
        (
            "f.yaml:9:3: processors::lookup: the processor type 'lookup' is part of the OpenTelemetry Collector, "
            "but Tailrace does not have it yet"
        ),
        (
            "f.yaml:10:3: processors::btach: unknown processor type 'btach' (did you mean 'batch'?); "
            "the available types are batch, tail"
        ),
        (
            "f.yaml:11:3: processors::debug: unknown processor type 'debug'; "
            "it is one of the exporters; configure it there"
        ),
    ]
    found = examine(["f.yaml"], (), registry, environ={}, read=lambda path: text)
    outcomes = {each.id: each.outcome for each in found.components}
    assert outcomes["lookup"] is Outcome.ELSEWHERE
    assert outcomes["btach"] is Outcome.UNKNOWN
    assert outcomes["batch"] is Outcome.RUNS


@pytest.mark.parametrize(
    ("pipelines", "mistake"),
    [
        ("{traces: {receivers: [], exporters: [debug]}}", "the pipeline must have at least one receiver"),
        ("{traces: {receivers: [otpl], exporters: [debug]}}", "(did you mean 'otlp'?)"),
        ("{traces: {receivers: otlp, exporters: [debug]}}", "expected a list"),
        ("{trace: {receivers: [otlp], exporters: [debug]}}", "unknown signal 'trace'"),
        ("{traces: {reciever: [otlp], exporters: [debug]}}", "unknown key 'reciever'"),
        ("{traces: {receivers: [otlp], exporters: []}}", "the pipeline must have at least one exporter"),
    ],
)
def test_a_mistake_in_a_list_calls_nothing_unused(registry, pipelines, mistake):
    """What should have been in the list is not called unused as well."""
    text = f"""
receivers: {{otlp: {{protocols: {{grpc: }}}}}}
exporters: {{debug: }}
service: {{pipelines: {pipelines}}}
"""
    found = examine(["yaml:" + text], (), registry, environ={})
    assert found.warnings == ()
    assert any(mistake in str(error) for error in found.errors)


def test_unused_components_are_noted(registry):
    """Unused components are allowed, with a note."""
    config = loaded(GOOD.replace("[otlp_grpc, otlp/two]", "[otlp_grpc]"), registry)
    assert [str(note) for note in config.warnings] == [
        "f.yaml:14:3: exporters::otlp/two: this exporter is configured but not used in any pipeline"
    ]


@pytest.mark.parametrize(
    ("telemetry", "endpoint"),
    [
        ("{metrics: {address: '0.0.0.0:9999'}}", ("0.0.0.0", 9999)),
        ("{metrics: {address: '[::1]:9999'}}", ("::1", 9999)),
        ("{metrics: {level: none}}", None),
        ("{metrics: {level: Detailed, readers: [{pull: {exporter: {prometheus: {host: h, port: 1}}}}]}}", ("h", 1)),
        ("{metrics: {readers: [{pull: {exporter: {prometheus/development: {host: h, port: 2}}}}]}}", ("h", 2)),
        ("{metrics: {readers: [{periodic: {exporter: {otlp: {}}}}]}, traces: {level: none}}", None),
        ("{logs: {level: WARN, encoding: json, sampling: {initial: 5}, output_paths: [stdout]}}", ("localhost", 8888)),
        ("", ("localhost", 8888)),
    ],
)
def test_telemetry_has_the_collectors_keys(registry, telemetry, endpoint):
    """service.telemetry is read in the Collector's present and deprecated forms."""
    config = loaded(GOOD + f"  telemetry: {telemetry}\n", registry)
    assert config.service.telemetry.metrics.endpoint() == endpoint


def test_telemetry_errors(registry):
    """Mistakes in service.telemetry have positions as well."""
    found = lines(GOOD + "  telemetry: {logs: {level: loud}, metrics: {readers: [{}], adress: x}}\n", registry)
    assert [each.split(": ", 2)[1] for each in found] == [
        "service::telemetry::logs::level",
        "service::telemetry::metrics::readers::0",
        "service::telemetry::metrics",
    ]


@pytest.mark.parametrize(("value", "seconds"), [("1m30s", 90.0), ("0s", 0.0), ("null", 30.0)])
def test_the_shutdown_timeout_is_a_duration(registry, value, seconds):
    """Without a value it is 30 s."""
    config = loaded(GOOD + f"  shutdown_timeout: {value}\n", registry)
    assert config.service.drain.shutdown_timeout == seconds
    assert loaded(GOOD, registry).service.drain.shutdown_timeout == 30.0


def test_a_wrong_shutdown_timeout_has_a_position(registry):
    """The path names the key."""
    (found,) = lines(GOOD + "  shutdown_timeout: 5x\n", registry)
    assert "service::shutdown_timeout" in found
    assert "5x" in found


def test_unknown_sections_and_wrong_shapes(registry):
    """A misspelt section, a section that is a list and a component that is text are all reported."""
    found = lines("receiver: {}\nprocessors: []\nexporters: {debug: text}\nservice: {pipeline: {}}\n", registry)
    assert found == [
        (
            "f.yaml:1:1: unknown section 'receiver' (did you mean 'receivers'?); the allowed sections are "
            "receivers, processors, exporters, connectors, extensions, service"
        ),
        "f.yaml:2:13: processors: expected a mapping, got a list",
        "f.yaml:3:13: exporters::debug: expected a mapping, got 'text'",
        "f.yaml:4:1: service::pipelines: the service must have at least one pipeline",
        (
            "f.yaml:4:11: service: unknown key 'pipeline' (did you mean 'pipelines'?); "
            "the allowed keys are extensions, pipelines, telemetry, shutdown_timeout"
        ),
    ]


COUNTED = """
receivers: {otlp: {protocols: {grpc: }}}
processors: {sampling: {rules: [{name: rest, ratio: 0.1}]}, batch: }
exporters: {debug: }
connectors: {span_metrics: , forward: }
service:
  pipelines:
    traces/a: {receivers: [otlp], processors: [batch], exporters: [FIRST]}
    traces/b: {receivers: [RECEIVER], processors: [sampling], exporters: [SECOND]}
    traces/c: {receivers: [LAST], exporters: [THIRD]}
    metrics: {receivers: [span_metrics], exporters: [debug]}
"""


@pytest.mark.parametrize(
    ("words", "is_noted"),
    [
        (
            {
                "FIRST": "span_metrics, forward",
                "RECEIVER": "forward",
                "SECOND": "debug",
                "LAST": "otlp",
                "THIRD": "debug",
            },
            False,
        ),
        (
            {
                "FIRST": "debug",
                "RECEIVER": "otlp",
                "SECOND": "span_metrics, forward",
                "LAST": "forward",
                "THIRD": "debug",
            },
            True,
        ),
        ({"FIRST": "debug", "RECEIVER": "otlp", "SECOND": "forward", "LAST": "forward", "THIRD": "span_metrics"}, True),
    ],
)
def test_counting_behind_sampling_is_noted(words, is_noted):
    """In the same pipeline or further up, through connectors; counting before it is not."""
    registry = Registry.of([otlp, batch, sampling, debug, forward, span_metrics])
    text = COUNTED
    for word, value in words.items():
        text = text.replace(f"[{word}]", f"[{value}]")
    noted = [
        str(note)
        for note in loaded(text, registry).warnings
        if "counts only the items that sampling keeps" in str(note)
    ]
    assert [note.split(": ")[:2] for note in noted] == (
        [["f.yaml:5:14", "connectors::span_metrics"]] if is_noted else []
    )
