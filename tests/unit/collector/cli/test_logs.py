import json
import logging

import pytest
import structlog

from collector.cli._logs import LogThrottle, logging_to
from collector.delivery.log import RateLimitedLog
from collector.testing import FakeClock
from collector.text.own_log import UNSAMPLED, Lines
from collector.transport.error_log import ErrorLog
from config.model import LogSampling, LogsTelemetry


def written(tmp_path, log=None, **keys):
    """The text written to a log file with this configuration."""
    path = tmp_path / "log"
    with logging_to(LogsTelemetry.model_validate({"output_paths": [str(path)], **keys})):
        if log:
            log(structlog.get_logger("t"))
        else:
            structlog.get_logger("t").info("hello there", size_bytes=5)
    return path.read_text()


def test_json(tmp_path):
    """JSON lines have time, level, message, caller and the initial fields."""
    line = json.loads(written(tmp_path, encoding="json", initial_fields={"region": "eu"}))
    assert line["msg"] == "hello there"
    assert line["level"] == "info"
    assert line["size_bytes"] == 5
    assert line["region"] == "eu"
    assert line["filename"] == "test_logs.py"
    assert "ts" in line


def test_logfmt_and_console(tmp_path):
    """logfmt and console lines; the caller can be left out, and files contain no colour codes."""
    assert 'level=info msg="hello there" size_bytes=5' in written(tmp_path, encoding="logfmt", disable_caller=True)
    (tmp_path / "log").unlink()
    console = written(tmp_path, disable_caller=True)
    assert "hello there" in console
    assert "\x1b" not in console


class Text(str):
    """Text whose representation is the text itself, as that of some errors is."""

    __slots__ = ()

    def __repr__(self):
        return str(self)


HOSTILE = "a\x1b[31m\x9b2J\r\nlevel=error \u202e"


@pytest.mark.parametrize("encoding", ["console", "logfmt", "json"])
def test_text_from_outside_cannot_control_the_terminal(tmp_path, encoding):
    """Messages, values and exceptions are escaped in every encoding; a forged line remains part of its own line."""

    def log(logger):
        logger.info("said", name=HOSTILE, names=[HOSTILE], number=5)
        logger.warning(HOSTILE)
        try:
            {}[HOSTILE]
        except KeyError as error:
            error.args = (Text(HOSTILE),)
            logger.exception("failed")

    text = written(tmp_path, log, encoding=encoding)
    assert all(character == "\n" or character.isprintable() for character in text)
    assert not any(line.startswith("level=error") for line in text.splitlines())
    assert "5" in text


def test_logfmt_keys_are_valid(tmp_path):
    """A key of initial_fields that logfmt cannot have does not cost the line its fields."""
    assert "my_key=1 size_bytes=5" in written(
        tmp_path, encoding="logfmt", disable_caller=True, initial_fields={"my key": 1}
    )


@pytest.mark.parametrize(("level", "count"), [("debug", 4), ("info", 3), ("warn", 2), ("error", 1)])
def test_levels(tmp_path, level, count):
    """Only messages at least as severe as the level are written."""

    def log(logger):
        logger.debug("a")
        logger.info("b")
        logger.warning("c")
        logger.error("d")

    assert len(written(tmp_path, log, level=level).splitlines()) == count


def test_other_libraries_join(tmp_path):
    """Warnings of the standard library's logging are written in the same form, until the context ends."""
    line = json.loads(
        written(tmp_path, lambda logger: logging.getLogger("aiohttp").warning("odd %s", "thing"), encoding="json")
    )
    assert (line["msg"], line["logger"], line["level"]) == ("odd thing", "aiohttp", "warning")
    assert not [handler for handler in logging.getLogger().handlers if type(handler).__name__ == "_Forward"]


def failing(logger):
    try:
        int("the reason")
    except ValueError:
        logger.exception("it failed")


def test_stack_traces(tmp_path):
    """An exception is logged with its traceback, or with its message alone."""
    assert "Traceback" in written(tmp_path, failing, encoding="json")
    (tmp_path / "log").unlink()
    short = json.loads(written(tmp_path, failing, encoding="json", disable_stacktrace=True))
    assert short["error"] == "ValueError: invalid literal for int() with base 10: 'the reason'"


def test_sampling():
    """The first equal messages of a tick pass, then every n-th; each tick and each message counts for itself."""
    now = [0.0]
    sampler = LogThrottle(LogSampling(tick="10s", initial=2, thereafter=3), lambda: now[0])

    def passes(event="a"):
        try:
            sampler(None, "info", {"event": event})
        except structlog.DropEvent:
            return False
        return True

    assert [passes() for _ in range(8)] == [True, True, False, False, True, False, False, True]
    assert passes("b")
    now[0] = 10.0
    assert passes()
    none_after = LogThrottle(LogSampling(tick="10s", initial=1, thereafter=0), lambda: 0.0)
    none_after(None, "info", {"event": "a"})
    with pytest.raises(structlog.DropEvent):
        none_after(None, "info", {"event": "a"})


def test_findings_are_not_sampled(tmp_path):
    """Neither those about a configuration nor the rows of the ledger; nothing of the mark is written."""

    def findings(logger):
        for number in range(50):
            logger.warning("a finding", number=number, **UNSAMPLED)

    for encoding in ("console", "json", "logfmt"):
        text = written(tmp_path, findings, encoding=encoding)
        assert [text.count("a finding"), "sampled" in text] == [50, False]
        (tmp_path / "log").unlink()


def test_the_caller_is_the_module_that_reports(tmp_path):
    """Not the helpers that report in its name."""

    def report(logger):
        RateLimitedLog(logger, FakeClock()).warning("one")
        RateLimitedLog(logger, FakeClock()).error("two")
        RateLimitedLog(logger, FakeClock()).first_errors("three")
        ErrorLog(logger, FakeClock(), "four", config="x")(ValueError("no"))
        logging.getLogger("library").warning("five")

    lines = written(tmp_path, report, encoding="json").splitlines()
    assert [json.loads(line)["filename"] for line in lines] == ["test_logs.py"] * 5


def test_own_line_breaks_are_breaks(tmp_path):
    """In each encoding in its way: a line, a line of its own, a break in the text. Those of senders stay escaped."""

    def show(logger):
        logger.info(Lines("Span #0\n    name: " + r"forged\nERROR" + "\nend\x1b"), size=1)

    console = written(tmp_path, show, disable_caller=True).splitlines()
    assert console[0].endswith("Span #0")
    assert console[1:] == [r"    name: forged\nERROR", r"end\x1b", " size=1"]
    (tmp_path / "log").unlink()
    logfmt = written(tmp_path, show, disable_caller=True, encoding="logfmt").splitlines()
    assert [line.partition("level=info ")[2] for line in logfmt] == [
        'msg="Span #0" size=1',
        r'msg="    name: forged\\nERROR" size=1',
        r"msg=end\x1b size=1",
    ]
    (tmp_path / "log").unlink()
    (line,) = written(tmp_path, show, encoding="json").splitlines()
    assert json.loads(line)["msg"].splitlines()[1] == r"    name: forged\nERROR"


def test_sampling_is_on_by_default(tmp_path):
    """A storm of equal messages is thinned out; without sampling all are written."""

    def storm(logger):
        for _ in range(50):
            logger.info("again")

    assert len(written(tmp_path, storm).splitlines()) == 10
    (tmp_path / "log").unlink()
    assert len(written(tmp_path, storm, sampling={"enabled": False}).splitlines()) == 50


def test_a_reload_changes_loggers_that_exist_already(tmp_path):
    """Level, encoding and outputs, also of loggers that components have bound."""
    first, second = tmp_path / "first", tmp_path / "second"
    with logging_to(LogsTelemetry.model_validate({"output_paths": [str(first)]})) as configure:
        bound = structlog.get_logger("t").bind(exporter="x")
        bound.info("one")
        bound.debug("hidden")
        configure(LogsTelemetry.model_validate({"output_paths": [str(second)], "level": "debug", "encoding": "json"}))
        bound.debug("two")
    assert "one" in first.read_text()
    assert "hidden" not in first.read_text()
    line = json.loads(second.read_text())
    assert (line["msg"], line["exporter"]) == ("two", "x")


def test_outputs_that_cannot_be_opened_leave_the_log_as_it_was(tmp_path):
    """The caller learns of it, and lines are still written."""
    path = tmp_path / "log"
    with logging_to(LogsTelemetry.model_validate({"output_paths": [str(path)]})) as configure:
        with pytest.raises(OSError, match="nowhere"):
            configure(LogsTelemetry.model_validate({"output_paths": [str(tmp_path / "nowhere/log")]}))
        structlog.get_logger("t").info("still here")
    assert "still here" in path.read_text()


def test_a_field_that_cannot_be_rendered_costs_only_its_line(tmp_path):
    """The code that logs does not see the error."""

    class Bad:
        def __repr__(self):
            raise RuntimeError("no")

        __str__ = __repr__

    text = written(tmp_path, lambda logger: (logger.info("bad", field=Bad()), logger.info("good")), encoding="json")
    assert "log_error=RuntimeError" in text.splitlines()[0]
    assert json.loads(text.splitlines()[1])["msg"] == "good"
