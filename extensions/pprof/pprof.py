"""Serves profiles at the paths of Go's net/http/pprof, as far as Python knows what they show.

Source: Go's net/http/pprof (paths, ``seconds``, ``debug``); opentelemetry-collector-contrib extension/pprofextension.
"""

import asyncio
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs

from collector.api import Extension, Host, Settings
from collector.text.printable import printable
from collector.transport.http import HTTPServer, Request, Response, Route
from collector.transport.redaction import arguments_without_values
from config.blocks import HTTPServerConfig
from extensions.pprof.config import PprofConfig
from extensions.pprof.profile import Frame, ProfileBuilder
from extensions.pprof.sampler import CPUSampler
from extensions.pprof.stacks import task_stacks, thread_stacks

__all__ = ["PprofExtension"]

_SHUTDOWN_GRACE_S: Final = 1.0
_ROOT: Final = "/debug/pprof/"
_SECONDS: Final = 30
_SECONDS_MAX: Final = 300
_HEADERS: Final = (("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store"))
_REFUSED: Final = {
    "allocs": "CPython does not keep count of memory that was freed; see heap",
    "block": "CPython does not record how long threads wait; see goroutine for where they wait now",
    "mutex": "CPython does not record contention for locks; see goroutine for where threads wait now",
    "symbol": "profiles have the names of all functions",
    "threadcreate": "CPython does not record where threads were created; see goroutine for the threads there are",
    "trace": "CPython has no execution trace; see profile",
}
_INDEX: Final = f"""profiles of this process:
{_ROOT}profile?seconds=30  CPU, by sampling
{_ROOT}goroutine           stacks of all threads and tasks; with debug=1 as text
{_ROOT}heap                allocated memory, if the process was started with PYTHONTRACEMALLOC=10
{_ROOT}cmdline             the command line, without values
"""
_TRACEMALLOC: Final = (
    "/debug/pprof/heap needs tracemalloc: start the process with PYTHONTRACEMALLOC=10 in its environment"
)


class PprofExtension(Extension):
    """An HTTP listener that answers with profiles."""

    def __init__(self, settings: Settings, config: PprofConfig) -> None:
        self._settings, self._config = settings, config
        self._server: HTTPServer | None = None
        self._sampler: CPUSampler | None = None
        """The CPU profile in progress; there is at most one."""
        self._is_saving = False

    @property
    def port(self) -> int:
        """The port it listens on; 0 before the start."""
        return self._server.port if self._server else 0

    async def start(self, host: Host) -> None:
        """Start to listen, and to sample if the profile of the whole run is wanted."""
        key = f"extensions::{self._settings.id}"
        handlers: dict[str, Callable[[Request], Response | None]] = {
            "": lambda _: Response.text(200, _INDEX, _HEADERS),
            "cmdline": lambda _: Response.text(200, "\0".join(arguments_without_values(sys.argv)), _HEADERS),
            "profile": self._cpu,
            "goroutine": self._goroutine,
            "heap": self._heap,
        }
        routes: dict[str, Route] = {f"{_ROOT}{name}": _Answer(answer) for name, answer in handlers.items()}
        for name, reason in _REFUSED.items():
            routes[f"{_ROOT}{name}"] = _Answer(_refusal(f"{_ROOT}{name} is not available: {reason}\n"))
        server = HTTPServer(
            HTTPServerConfig(endpoint=self._config.endpoint),
            routes,
            default=_Answer(_refusal(f"there is no such profile; {_INDEX}")),
            key=key,
            clock=self._settings.clock,
            log=self._settings.telemetry.log,
        )
        if self._config.save_to_file:
            try:  # a mistake shows now, not after the run
                await asyncio.to_thread(Path(self._config.save_to_file).write_bytes, b"")
            except OSError as error:
                raise ValueError(
                    f"{key}::save_to_file: cannot write {self._config.save_to_file}: {error.strerror}"
                ) from error
        await server.start(host)
        self._server = server
        if self._config.save_to_file:
            self._is_saving = True
            self._sampler = CPUSampler()
            self._sampler.start()

    async def shutdown(self) -> None:
        """Stop listening, and write the profile of the whole run if it is wanted."""
        server, self._server = self._server, None
        if server is not None:
            await server.shutdown(_SHUTDOWN_GRACE_S)
        sampler, self._sampler = self._sampler, None
        if self._is_saving and sampler is not None:
            self._is_saving = False
            profile = await asyncio.to_thread(sampler.stop)
            try:
                await asyncio.to_thread(Path(self._config.save_to_file).write_bytes, profile)
            except OSError as error:
                self._settings.telemetry.log.error("the profile could not be written", error=str(error))  # noqa: TRY400 - expected

    def _cpu(self, request: Request) -> Response | None:
        seconds = _number(request, "seconds", _SECONDS)
        if seconds is None or not 0 < seconds <= _SECONDS_MAX:
            return Response.text(400, f"seconds: expected a number between 1 and {_SECONDS_MAX}\n", _HEADERS)
        if self._sampler is not None:
            return Response.text(409, "another CPU profile is in progress; try again when it has ended\n", _HEADERS)
        self._sampler = CPUSampler()
        self._sampler.start()
        request.spawn(self._finish_cpu(request, self._sampler, seconds))
        return None

    async def _finish_cpu(self, request: Request, sampler: CPUSampler, seconds: int) -> None:
        try:
            await self._settings.clock.sleep(seconds)
        finally:
            self._sampler = None
            profile = sampler.stop()  # waits for one period at most
        request.reply(_profile(profile, "profile"))

    def _goroutine(self, request: Request) -> Response:
        stacks = [(name, "thread", stack) for name, stack in thread_stacks()]
        stacks += [(name, "task", stack) for name, stack in task_stacks()]
        if _number(request, "debug", 0):
            return Response.text(200, "\n".join(map(_stack_text, stacks)), _HEADERS)
        builder = ProfileBuilder(("goroutine", "count"))
        for name, kind, stack in stacks:
            builder.add(stack, [1], kind=kind, name=printable(name))
        return _profile(builder.build(time_unix_nano=self._settings.clock.time_unix_nano()), "goroutine")

    def _heap(self, request: Request) -> Response | None:
        if not tracemalloc.is_tracing():
            return Response.text(404, f"{_TRACEMALLOC}\n", _HEADERS)
        request.spawn(self._finish_heap(request))
        return None

    async def _finish_heap(self, request: Request) -> None:
        time_unix_nano = self._settings.clock.time_unix_nano()
        request.reply(_profile(await asyncio.to_thread(_heap_profile, time_unix_nano), "heap"))


class _Answer(Route):
    """Answers from the head of the request, at once or later."""

    def __init__(self, answer: Callable[[Request], Response | None]) -> None:
        self._answer = answer

    def check(self, request: Request) -> Response | None:
        """Refuse methods that ask for something else."""
        if request.method not in ("GET", "HEAD"):
            return Response.text(405, "expected GET\n", (("Allow", "GET, HEAD"),))
        return None

    def serve(self, request: Request) -> None:
        """Answer, or begin what answers later."""
        response = self._answer(request)
        if response is not None:
            request.reply(response)


def _refusal(message: str) -> Callable[[Request], Response]:
    response = Response.text(404, message, _HEADERS)
    return lambda _: response


def _profile(body: bytes, name: str) -> Response:
    disposition = ("Content-Disposition", f'attachment; filename="{name}.pb.gz"')
    return Response(200, body, "application/octet-stream", (*_HEADERS, disposition))


def _number(request: Request, key: str, default: int) -> int | None:
    """The number under ``key`` in the query; None if it is not one."""
    values = parse_qs(request.query, max_num_fields=16).get(key)
    if not values:
        return default
    return int(values[0]) if values[0].isascii() and values[0].isdigit() and len(values[0]) < len("1000000") else None


def _stack_text(named: tuple[str, str, list[Frame]]) -> str:
    name, kind, stack = named
    lines = (f"    {printable(frame.function)}\n        {printable(frame.file)}:{frame.line}\n" for frame in stack)
    return f"{kind} {printable(name)}:\n{''.join(lines)}"


def _heap_profile(time_unix_nano: int) -> bytes:
    builder = ProfileBuilder(("inuse_objects", "count"), ("inuse_space", "bytes"))
    for statistic in tracemalloc.take_snapshot().statistics("traceback"):
        stack = [Frame("", frame.filename, frame.lineno) for frame in reversed(statistic.traceback)]
        builder.add(
            [frame._replace(function=f"{frame.file}:{frame.line}") for frame in stack],
            [statistic.count, statistic.size],
        )
    return builder.build(time_unix_nano=time_unix_nano)
