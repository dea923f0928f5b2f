"""The service's own log, as configured in ``service.telemetry.logs``; the logging of libraries joins it.

Source: the Collector's service/telemetry logs keys (zap's meaning of ``sampling``).
"""

import contextlib
import io
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final, TextIO

import structlog

from collector.cli._log_writer import LogWriter
from collector.text.own_log import SAMPLED_KEY, Lines
from collector.text.printable import printable
from config.model import LogSampling, LogsTelemetry

__all__ = ["LogThrottle", "logging_to"]

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
_METHOD_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "warn": logging.WARNING}
_MAX_SAMPLED_MESSAGES = 4096
# Modules that log on behalf of others: the caller of an event is who called them.
_ON_BEHALF_OF_OTHERS: Final = ["logging", "collector.delivery.log", "collector.transport.error_log"]
_NOT_LOGFMT_KEY: Final = re.compile(r'[\s="]|[^ -~]')


class LogThrottle:
    """Lets the first ``initial`` equal messages of a tick through, then every ``thereafter``-th one."""

    def __init__(self, config: LogSampling, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._monotonic_s = monotonic_s
        self._tick_ends_s = 0.0
        self._counts: dict[int, int] = {}
        """By the hash of level and message, because a message of a library can be of any length."""

    def __call__(self, logger: Any, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        """The event unchanged, or DropEvent if it is to be left out."""
        del logger
        if event.get(SAMPLED_KEY) is False:
            return event
        now = self._monotonic_s()
        if now >= self._tick_ends_s or len(self._counts) >= _MAX_SAMPLED_MESSAGES:
            self._counts.clear()
            self._tick_ends_s = now + self._config.tick
        key = hash((method, str(event.get("event"))))
        count = self._counts[key] = self._counts.get(key, 0) + 1
        excess = count - self._config.initial
        if excess <= 0 or (self._config.thereafter and excess % self._config.thereafter == 0):
            return event
        raise structlog.DropEvent


class _OwnLog:
    """What every logger of the process writes through, so that a reload can change it for loggers that exist already.

    It is structlog's only processor and its output. A fault in a processor costs a line its fields, but never reaches
    the code that logs.
    """

    def __init__(self) -> None:
        self._level = logging.INFO
        self._processors: tuple[structlog.typing.Processor, ...] = ()
        self._writer: LogWriter | None = None

    def use(self, level: int, processors: Sequence[structlog.typing.Processor], writer: LogWriter) -> None:
        """Write like this from now on."""
        self._level, self._processors, self._writer = level, tuple(processors), writer

    def __call__(self, logger: Any, method: str, event: structlog.typing.EventDict) -> Any:
        if _METHOD_LEVELS.get(method, logging.ERROR) < self._level:
            raise structlog.DropEvent
        sentence = event.get("event")
        result: Any = event
        try:
            for processor in self._processors:
                result = processor(logger, method, result)
        except structlog.DropEvent:
            raise
        except Exception as error:  # noqa: BLE001 - logging must not affect the data
            return f"level={method} msg={sentence!r} log_error={type(error).__name__}"
        return result

    def write(self, text: str) -> int:
        return len(text) if self._writer is None else self._writer.write(text)

    def flush(self) -> None:
        """Nothing: the writer's thread writes at once."""


class _Forward(logging.Handler):
    """Forwards records of the standard library's logging to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = structlog.get_logger(record.name)
        logger.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)


def _without_stack(logger: Any, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    del logger, method
    error = event.pop("exc_info", None)
    event.pop("stack_info", None)
    if error:
        found = (
            error if isinstance(error, BaseException) else (error[1] if isinstance(error, tuple) else sys.exc_info()[1])
        )
        if found is not None:
            event["error"] = f"{type(found).__name__}: {found}"
    return event


def _escape(logger: Any, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Text from outside can neither forge a line nor control a terminal, in encodings that write it as it is."""
    del logger, method
    escaped = {key: _printable(value) if isinstance(value, str) else value for key, value in event.items()}
    if "\n" in str(escaped.get("event")):
        escaped["event"] += "\n"  # the values follow on a line of their own
    return escaped


def _printable(text: str) -> str:
    if isinstance(text, Lines):
        return "\n".join(map(printable, text.split("\n")))
    return printable(text)


def _without_mark(logger: Any, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    del logger, method
    event.pop(SAMPLED_KEY, None)
    return event


def _escape_for_logfmt(logger: Any, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """The same, also for keys of ``initial_fields`` and for what is written as text without being text."""
    del logger, method
    return {
        _NOT_LOGFMT_KEY.sub("_", key): value
        if isinstance(value, int | float | None)
        else _printable(value if isinstance(value, str) else str(value))
        for key, value in event.items()
    }


_logfmt: Final = structlog.processors.LogfmtRenderer(key_order=["ts", "level", "msg"], bool_as_flag=False)


def _render_logfmt(logger: Any, method: str, event: structlog.typing.EventDict) -> str:
    """The event in logfmt, where a line is a record of its own."""
    lines = str(event["msg"]).split("\n")
    return "\n".join(_logfmt(logger, method, {**event, "msg": line}) for line in lines)


def _write_traceback(out: TextIO, error: structlog.typing.ExcInfo) -> None:
    """Write the traceback, indented: its lines may contain text from outside, which must not look like log lines."""
    buffer = io.StringIO()
    structlog.dev.plain_traceback(buffer, error)
    lines = buffer.getvalue().strip("\n").split("\n")
    out.write("".join(f"\n  {printable(line)}" for line in lines))


def _lost_line(config: LogsTelemetry) -> Callable[[int], str]:
    """Renders the line that says how many lines were lost, in the configured encoding."""
    if config.encoding == "json":
        return '{{"level":"warning","msg":"log lines could not be written","lost_lines":{}}}'.format
    return 'level=warning msg="log lines could not be written" lost_lines={}'.format


def _processors(config: LogsTelemetry, *, coloured: bool) -> list[structlog.typing.Processor]:
    initial = dict(config.initial_fields)

    def add_initial(logger: Any, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        del logger, method
        return {**initial, **event}

    chain: list[structlog.typing.Processor] = []
    if config.sampling is not None and config.sampling.enabled:
        chain.append(LogThrottle(config.sampling))
    chain += [
        _without_mark,
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
    ]
    if not config.disable_caller:
        parameters = (structlog.processors.CallsiteParameter.FILENAME, structlog.processors.CallsiteParameter.LINENO)
        chain.append(
            structlog.processors.CallsiteParameterAdder(
                parameters, additional_ignores=[*_ON_BEHALF_OF_OTHERS, __name__]
            )
        )
    if initial:
        chain.append(add_initial)
    if config.disable_stacktrace:
        chain.append(_without_stack)
    if config.encoding == "console":
        return [
            *chain,
            _escape,
            structlog.dev.ConsoleRenderer(colors=coloured, exception_formatter=_write_traceback, timestamp_key="ts"),
        ]
    chain += [structlog.processors.format_exc_info, structlog.processors.EventRenamer("msg")]
    if config.encoding == "json":
        return [*chain, structlog.processors.JSONRenderer(default=str)]
    chain.append(_escape_for_logfmt)
    return [*chain, _render_logfmt]


@contextlib.contextmanager
def logging_to(config: LogsTelemetry) -> Iterator[Callable[[LogsTelemetry], None]]:
    """Configure logging for as long as the context is open; the context's value changes the configuration meanwhile.

    Lines are written by a thread (:class:`LogWriter`): an output that fails or blocks does not affect the service.

    Raises:
        OSError: an output cannot be opened.
    """
    previous = structlog.get_config()
    own_log, handler, root = _OwnLog(), _Forward(), logging.getLogger()
    previous_level = root.level
    with contextlib.ExitStack() as stack:
        outputs = stack.enter_context(contextlib.ExitStack())

        def configure(new: LogsTelemetry) -> None:
            nonlocal outputs
            opened = _open(new, own_log)  # before the old outputs are closed: they stay if this fails
            root.setLevel(max(logging.WARNING, _LEVELS[new.level]))
            closing, outputs = outputs, stack.enter_context(opened)
            closing.close()

        configure(config)
        structlog.configure(
            processors=[own_log],
            wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
            logger_factory=structlog.WriteLoggerFactory(file=own_log),  # type: ignore[arg-type]
            cache_logger_on_first_use=False,
        )
        root.addHandler(handler)
        try:
            yield configure
        finally:
            root.removeHandler(handler)
            root.setLevel(previous_level)
            structlog.configure(**previous)


def _open(config: LogsTelemetry, own_log: _OwnLog) -> contextlib.ExitStack:
    """Let ``own_log`` write as configured. Closing the result writes what is queued and closes the files."""
    with contextlib.ExitStack() as stack:
        streams: list[IO[str]] = []
        for path in config.output_paths:
            if path in ("stderr", "stdout"):
                streams.append(sys.stderr if path == "stderr" else sys.stdout)
            else:
                file = Path(path.removeprefix("file://"))
                streams.append(stack.enter_context(file.open("a", encoding="utf-8", buffering=1)))
        coloured = len(streams) == 1 and streams[0].isatty()
        writer = LogWriter(streams, lost_line=_lost_line(config))
        stack.callback(writer.close)  # before the files are closed
        own_log.use(_LEVELS[config.level], _processors(config, coloured=coloured), writer)
        return stack.pop_all()
