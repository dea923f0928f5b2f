import json
import re

import click
import pytest
from click.testing import CliRunner

import collector.cli
from collector.api import ComponentKind
from collector.cli import main
from collector.registry import ComponentDescription, Registry
from config.yaml import parse, plain


def test_help_lists_the_commands(tailrace):
    """Every module with a command is a subcommand."""
    result = tailrace("--help")
    assert result.exit_code == 0
    for name in ("components", "print-config", "run", "schema", "validate"):
        assert name in result.output


def test_version(tailrace):
    """--version prints name and version."""
    assert tailrace("--version").output.startswith("tailrace, version ")


def test_a_new_module_is_a_new_command(monkeypatch, tmp_path, tailrace):
    """A file that defines ``command`` is enough; modules without one and private modules are not commands."""
    (tmp_path / "hello_there.py").write_text("import click\n@click.command()\ndef command():\n    click.echo('hi')\n")
    (tmp_path / "helper.py").write_text("x = 1\n")
    monkeypatch.setattr(collector.cli, "__path__", [*collector.cli.__path__, str(tmp_path)])
    assert tailrace("hello-there").output == "hi\n"
    assert tailrace("helper").exit_code == 2
    assert tailrace("_logs").exit_code == 2
    assert "helper" not in tailrace("--help").output


@pytest.mark.parametrize("arguments", [("validate",), ("run",), ("nothing",), ("--wrong",)])
def test_wrong_usage(tailrace, arguments):
    """Wrong usage ends with exit code 2."""
    assert tailrace(*arguments).exit_code == 2


@pytest.mark.parametrize("command", [("run", "--config"), ("--config",)])
def test_run_starts_serves_and_shuts_down(tailrace, service, good, command):
    """run goes through the life cycle; tailrace --config without a command means run."""
    result = tailrace(*command, good)
    assert (result.exit_code, service.calls) == (0, ["init", "start", "run", "shutdown"])


def test_run_can_load_again(tailrace, service, good):
    """The service receives a function that reads the same sources again, for a reload."""
    tailrace("run", "--config", good, "--set", "exporters.otlp_grpc.endpoint=new")
    (exporter,) = service.load().exporters.values()
    assert exporter.config.endpoint == "new"


def test_run_reports_a_defect_with_its_traceback(tailrace, service, good):
    """An unexpected error is shown with its traceback."""
    service.fail_in, service.error = "run", RuntimeError("a defect")
    result = tailrace("run", "--config", good)
    assert result.exit_code == 1
    assert "Traceback" in result.output
    assert service.calls[-1] == "shutdown"


def test_run_reports_a_failed_start(tailrace, service, good):
    """If a component fails to start, the command shuts down and ends with exit code 1 and its message."""
    service.fail_in, service.error = (
        "start",
        OSError("port 4317 is taken by otelcol (pid 7): set receivers::otlp::grpc::endpoint"),
    )
    result = tailrace("run", "--config", good)
    assert result.exit_code == 1
    assert "port 4317 is taken by otelcol" in result.output
    assert "Traceback" not in result.output
    assert service.calls[-1] == "shutdown"


def test_run_with_ctrl_c(tailrace, service, good):
    """An interrupt that the service did not handle itself ends the command with exit code 130."""
    service.fail_in, service.error = "run", KeyboardInterrupt()
    assert tailrace("run", "--config", good).exit_code == 130
    assert service.calls[-1] == "shutdown"


def test_run_refuses_a_bad_configuration(tailrace, service, good):
    """Nothing is started on a bad configuration; every error is shown."""
    result = tailrace(
        "run", "--config", good, "--set", "exporters.otlp_grpc.endpoint=5", "--set", "service.telemetri=1"
    )
    assert (result.exit_code, service.calls) == (1, [])
    assert (
        "error: --set exporters.otlp_grpc.endpoint: exporters::otlp_grpc::endpoint: expected text, got 5; "
        "write it in quotes: '5'" in result.output
    )
    assert "unknown key 'telemetri' (did you mean 'telemetry'?)" in result.output
    assert "2 errors" in result.output


def test_run_refuses_a_log_file_it_cannot_open(tailrace, good, tmp_path):
    """The log file is opened before anything starts."""
    result = tailrace(
        "run", "--config", good, "--set", f"service.telemetry.logs.output_paths=[{tmp_path / 'no' / 'log'}]"
    )
    assert result.exit_code == 1
    assert "output_paths" in result.output


def test_run_refuses_a_shared_environment(monkeypatch, tailrace, good):
    """Nothing is started if another distribution installs a package with one of our names."""
    monkeypatch.setattr(
        "collector.cli.run.check_top_level_names",
        lambda: ["the distribution 'x' also installs a package named 'config'"],
    )
    result = tailrace("run", "--config", good)
    assert result.exit_code == 1
    assert "the distribution 'x'" in result.output


def test_validate_ok(tailrace, service, good):
    """A valid configuration is built and summarized, but not started."""
    result = tailrace("validate", "--config", good)
    assert (result.exit_code, result.output) == (0, "OK: 1 receiver, 1 exporter in 1 pipeline\n")
    assert service.calls == ["init"]


def test_validate_builds_the_graph(tailrace, service, good):
    """An error in the constructor of a component is an error of validate."""
    service.fail_in, service.error = "init", ValueError("exporters::otlp_grpc: no certificate in /x")
    result = tailrace("validate", "--config", good)
    assert result.exit_code == 1
    assert "service: exporters::otlp_grpc: no certificate in /x\n1 error\n" in result.output


FOREIGN = """
receivers: {otlp: , fluentforward: {include: [x]}}
processors: {nonsense: }
exporters: {otlp: {endpint: x}}
service: {pipelines: {traces: {receivers: [otlp], exporters: [otlp]}}}
"""


def test_validate_on_a_collectors_file(tailrace, tmp_path):
    """It reports which components run, which only the Collector has and which are unknown, with their places."""
    path = tmp_path / "f.yaml"
    path.write_text(FOREIGN)
    full = tailrace("validate", "--config", str(path))
    compat = tailrace("validate", "--compat", "--config", str(path))
    assert (full.exit_code, compat.exit_code) == (1, 1)
    for part in (
        "1 of 4 components run unchanged",
        f"receivers fluentforward ({path}:2:21)",
        "1 part of the OpenTelemetry Collector, but not available in Tailrace yet:",
        f"processors nonsense ({path}:3:14)",
        "1 of an unknown type:",
        f"exporters otlp ({path}:4:13)",
    ):
        assert part in compat.output
        assert part in full.output
    assert "unknown key 'endpint' (did you mean 'endpoint'?)" in full.output
    assert "unknown key" not in compat.output


PARTLY_HERE = """\
receivers: {otlp: , fluentforward: }
processors: {k8sattributes: }
exporters: {otlp_grpc: }
service:
  pipelines:
    traces: {receivers: [otlp], processors: [k8sattributes], exporters: [otlp_grpc]}
    logs: {receivers: [fluentforward], exporters: [otlp_grpc]}
"""


@pytest.fixture
def partly_here(tmp_path):
    path = tmp_path / "partly.yaml"
    path.write_text(PARTLY_HERE)
    return str(path)


@pytest.mark.parametrize("option", [(), ("--compat",)])
def test_validate_says_how_many_pipelines_would_run(tailrace, service, partly_here, option):
    """The pipelines that remain without the missing components are built, counted, and shown with what they lack."""
    result = tailrace("validate", *option, "--config", partly_here)
    assert (result.exit_code, service.calls) == (1, ["init"])
    assert (
        "1 of 2 pipelines would run without the components that do not exist here; "
        "tailrace run --skip-missing starts them\n"
        f"  {partly_here}:6:5: service::pipelines::traces: the pipeline runs without processors [k8sattributes]; "
        "its data passes unchanged where a processor is left out\n"
        f"  {partly_here}:7:5: service::pipelines::logs: "
        "the pipeline does not run because none of its receivers is available\n"
    ) in result.output


def test_validate_does_not_promise_what_cannot_run(tailrace, service, partly_here):
    """Other mistakes, and a graph that cannot be built, are named where the pipelines are counted."""
    mistaken = tailrace("validate", "--config", partly_here, "--set", "exporters.otlp_grpc.endpint=x")
    assert "1 of 2 pipelines would run" in mistaken.output
    assert "without the components that do not exist here once the other errors are fixed\n" in mistaken.output
    service.fail_in, service.error = "init", ValueError("exporters::otlp_grpc: no certificate in /x")
    refused = tailrace("validate", "--config", partly_here)
    assert re.search(
        r"here, but the pipelines cannot be built: \S+: service: exporters::otlp_grpc: no certificate in /x\n",
        refused.output,
    )
    nothing = tailrace(
        "validate", "--config", partly_here, "--set", "service.pipelines.traces.receivers=[fluentforward]"
    )
    assert "0 of 2 pipelines would run without the components that do not exist here\n" in nothing.output


def test_validate_says_nothing_about_a_complete_configuration(tailrace, good):
    """Mistakes alone do not bring up missing components."""
    result = tailrace("validate", "--config", good, "--set", "exporters.otlp_grpc.endpint=x")
    assert result.exit_code == 1
    assert "would run" not in result.output


def test_run_refuses_what_does_not_exist_unless_told_to_skip_it(tailrace, service, partly_here):
    """Without the option nothing starts."""
    assert tailrace("run", "--config", partly_here).exit_code == 1
    assert service.calls == []


@pytest.mark.parametrize("command", [("run",), ()])
def test_run_skips_what_does_not_exist_loudly(tailrace, service, partly_here, command):
    """What remains is started, and everything left out is logged, even if only errors are logged."""
    arguments = ("--config", partly_here, "--set", "service.telemetry.logs.level=error", "--skip-missing")
    result = tailrace(*command, *arguments)
    assert (result.exit_code, service.calls) == (0, ["init", "start", "run", "shutdown"])
    for part in (
        f"{partly_here}:1:21: receivers::fluentforward: the receiver type 'fluentforward' is part of",
        "the pipeline runs without processors [k8sattributes]; its data passes unchanged where a processor is left out",
        "the pipeline does not run because none of its receivers is available",
        "left_out=['receivers::fluentforward', 'processors::k8sattributes']",
        "stopped_pipelines=['logs']",
        "incomplete_pipelines=['traces']",
    ):
        assert part in result.output
    assert list(service.load().service.pipelines) == ["traces"]


def test_run_starts_no_unprotected_pipeline_unless_told_to(tailrace, service, partly_here):
    """A processor of a type that nobody knows may have masked something; alone, the second option is refused."""
    arguments = ("run", "--config", partly_here, "--set", "processors.mask_cards={}")
    arguments += ("--set", "service.pipelines.traces.processors=[mask_cards]")
    refused = tailrace(*arguments, "--skip-missing")
    assert (refused.exit_code, service.calls) == (1, [])
    assert "without processors [mask_cards] data may leave that should not" in refused.output
    assert tailrace(*arguments, "--allow-unprotected").exit_code == 1
    forced = tailrace(*arguments, "--skip-missing", "--allow-unprotected")
    assert forced.exit_code == 0
    assert "its data passes unchanged where a processor is left out" in forced.output


def test_the_last_event_names_all_that_is_left_out(tailrace, tmp_path):
    """The sampling of the log, which hides equal messages after the first ten, hides no component."""
    path = tmp_path / "many.yaml"
    receivers = [f"fluentforward/{index}" for index in range(30)]
    text = PARTLY_HERE.replace("fluentforward: ", ", ".join(f"{each}: " for each in receivers))
    path.write_text(text.replace("[fluentforward]", f"[{', '.join(receivers)}]"))
    result = tailrace("run", "--skip-missing", "--config", str(path))
    (last,) = (line for line in result.output.splitlines() if "only a part of the configuration runs" in line)
    assert all(f"'receivers::{each}'" in last for each in receivers)


def test_skipping_changes_nothing_where_nothing_is_missing(tailrace, service, good):
    """With a complete configuration the option is without effect and nothing is logged about it."""
    result = tailrace("run", "--skip-missing", "--config", good)
    assert (result.exit_code, service.calls) == (0, ["init", "start", "run", "shutdown"])
    assert "skip-missing" not in result.output


FIVE_MISTAKES = """\
receivers:
  otlp:
    grcp:
exporters:
  otlp_grpc: {endpoint: 5}
  otlp_gprc/two: {}
service:
  pipelines:
    traces: {receivers: [otlpp], exporters: [otlp_grpc]}
  telemetri: {}
"""


@pytest.mark.parametrize("command", ["validate", "run"])
def test_five_mistakes_are_five_findings_with_places(tailrace, service, tmp_path, command):
    """All errors are reported at once, in the order of the file, with line and column; nothing is built."""
    path = tmp_path / "broken.yaml"
    path.write_text(FIVE_MISTAKES)
    result = tailrace(command, "--config", str(path))
    assert (result.exit_code, service.calls) == (1, [])
    places = re.findall(rf"^error: {re.escape(str(path))}:(\d+:\d+): (\S+): ", result.output, re.MULTILINE)
    assert places == [
        ("3:5", "receivers::otlp"),
        ("5:25", "exporters::otlp_grpc::endpoint"),
        ("6:3", "exporters::otlp_gprc/two"),
        ("9:26", "service::pipelines::traces::receivers"),
        ("10:3", "service"),
    ]
    assert "5 errors" in result.output


def test_components(tailrace):
    """Types are listed with module, aliases, stability and signals, as YAML."""
    listed = plain(parse(tailrace("components").output, "out"))
    assert listed["receivers"] == [
        {
            "name": "otlp",
            "module": listed["receivers"][0]["module"],
            "stability": "beta",
            "signals": ["logs", "metrics", "traces"],
        }
    ]
    assert listed["exporters"][0]["aliases"] == ["otlp"]
    assert listed["connectors"][0]["connects"] == ["logs to logs"]
    assert listed["buildinfo"]["command"] == "tailrace"


def test_components_marks_third_parties(monkeypatch, tailrace):
    """Each type names its distribution; those that Tailrace does not ship are marked, also if they cannot be loaded."""
    own = ComponentDescription(ComponentKind.RECEIVER, "own", "m", None, "broken", "tailrace 0.1.0")
    other = ComponentDescription(ComponentKind.EXPORTER, "other", "n", None, "missing", "their-plugin 2.3")
    monkeypatch.setattr(Registry, "describe", lambda self: [own, other])
    listed = plain(parse(tailrace("components").output, "out"))
    assert listed["receivers"] == [
        {"name": "own", "distribution": "tailrace 0.1.0", "module": "m", "unavailable": "broken"}
    ]
    assert listed["exporters"] == [
        {
            "name": "other",
            "distribution": "their-plugin 2.3",
            "third_party": True,
            "module": "n",
            "unavailable": "missing",
        }
    ]


def test_components_lists_what_is_installed():
    """With the real entry points the command lists the types, and the reason where one cannot be loaded."""
    listed = plain(parse(CliRunner().invoke(main, ["components"]).output, "out"))
    for section in ("receivers", "processors", "exporters"):
        for entry in listed[section]:
            assert "stability" in entry or entry["unavailable"]
            assert entry["distribution"].startswith("tailrace ") or entry["third_party"]


def test_print_config(tailrace, good):
    """Secrets are redacted unless asked for; the JSON form holds the same."""
    assert "hunter2" not in tailrace("print-config", "--config", good).output
    assert "hunter2" in tailrace("print-config", "--config", good, "--mode", "unredacted").output
    as_json = json.loads(tailrace("print-config", "--config", good, "--format", "json").output)
    assert as_json == plain(parse(tailrace("print-config", "--config", good).output, "out"))
    assert as_json["exporters"]["otlp_grpc"]["password"] == "[REDACTED]"


def test_schema(tailrace):
    """The schema is JSON and contains the components."""
    schema = json.loads(tailrace("schema").output)
    assert "^(otlp|otlp_grpc)(/.+)?$" in schema["properties"]["exporters"]["patternProperties"]


def test_unknown_commands():
    """A name without a module is not a command."""
    assert main.get_command(click.Context(main), "no-such") is None
