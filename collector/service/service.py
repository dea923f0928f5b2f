"""The life of the process: build, start, run, reload, drain, account.

Start: what is downstream first, receivers last. Stop: receivers first, then what they fed, so that everything taken can
    leave; what has
not left when ``shutdown_timeout_s`` is over is dropped with the reason ``shutdown``, and the final ledger says so.
A reload that fails leaves the old configuration running. After the start nothing in here ends the process but a signal.
"""

import asyncio
import contextlib
import gc
import importlib.metadata
import signal
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from collector.api import Clock, HealthCheck, Host, Status
from collector.service.admin import AdminServer
from collector.service.admission import ServiceAdmission
from collector.service.graph import Environment, Graph, HeldItems, Node, NodeKey, StartError, build
from collector.service.ledger import Ledger, render
from collector.service.process import SystemClock, raise_malloc_thresholds
from collector.service.telemetry import ServiceTelemetry
from config.model import Config

__all__ = ["SHUTDOWN_TIMEOUT_S", "Service"]

SHUTDOWN_TIMEOUT_S = 30.0  # Kubernetes' default terminationGracePeriodSeconds
_LAST_CHANCE_S = 1.0  # for each later component when an earlier one used the time up
_HEALTHY = frozenset({Status.STARTING, Status.OK, Status.STOPPING, Status.STOPPED, Status.RECOVERABLE_ERROR})
_Handler = Callable[[Mapping[str, str]], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class _HandedOver:
    """The state of a component that is being replaced, and what it holds."""

    state: object
    held: Sequence[HeldItems]


class Service:
    """One configuration, running. The constructor builds the graph and does no I/O.

    Raises:
        StartError: a component refuses its configuration.
    """

    def __init__(
        self,
        config: Config,
        registry: object = None,
        *,
        load: Callable[[], Config] | None = None,
        clock: Clock | None = None,
        shutdown_timeout_s: float = SHUTDOWN_TIMEOUT_S,
    ) -> None:
        """``load`` reads the configuration anew on SIGHUP, which is ignored without it. Factories are in ``config``, not ``registry``."""
        del registry
        self._load = load
        self._clock = clock or SystemClock()
        self._shutdown_timeout_s = shutdown_timeout_s
        self.version = _version()
        self.instance_id = _instance_id(config)
        self.ledger = Ledger()
        service_name = config.service.telemetry.resource_attributes().get("service.name") or "tailrace"
        self.telemetry = ServiceTelemetry(
            ledger=self.ledger,
            clock=self._clock,
            version=self.version,
            instance_id=self.instance_id,
            service_name=service_name,
        )
        self.admission = ServiceAdmission(self._clock)
        self._environment = Environment(
            self.telemetry, self.admission, self._clock, self.version, self.instance_id, self._clock.time_unix_nano()
        )
        self._log = structlog.get_logger()
        self._graph = build(config, self._environment)
        self._hosts: dict[str, _ComponentHost] = {}
        self._detach: list[Callable[[], None]] = []
        self._admin: AdminServer | None = None
        self._watch: asyncio.Task[None] | None = None
        self._is_started = self._is_ready = self._is_shut_down = False
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._reload_lock = asyncio.Lock()
        self._reloads: set[asyncio.Task[Any]] = set()

    @property
    def config(self) -> Config:
        """What runs."""
        return self._graph.config

    @property
    def graph(self) -> Graph:
        """The components that run."""
        return self._graph

    @property
    def admin_port(self) -> int:
        """Where /metrics, /health and /ledger are; 0: nowhere."""
        return self._admin.port if self._admin else 0

    async def start(self) -> None:
        """Start everything.

        Raises:
            StartError: a component could not start, or the admin port is taken. What had started is shut down again.
        """
        raise_malloc_thresholds()
        self._register_metrics()
        self._is_started = True
        try:
            await self._start_admin()
            await self._start_graph(self._graph)
        except BaseException:
            await self._end(self._graph, self._deadline_s())
            await self._stop_admin()
            self._is_shut_down = True
            raise
        self._watch = asyncio.ensure_future(self.admission.watch())
        gc.collect()
        gc.freeze()  # modules and configuration live as long as the process: full collections need not visit them
        self._is_ready = True
        self._log.info(
            "everything is ready",
            version=self.version,
            pipelines=list(self.config.service.pipelines),
            admin_port=self.admin_port,
        )

    async def run_until_stopped(self) -> None:
        """Return on SIGTERM, SIGINT or ``stop``. SIGHUP reloads. A second signal cuts the drain short."""
        loop = asyncio.get_running_loop()
        for number, hook in ((signal.SIGTERM, self.stop), (signal.SIGINT, self.stop), (signal.SIGHUP, self._on_hangup)):
            # not on this platform, or not in the main thread
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                loop.add_signal_handler(number, hook)
        # Left in place while draining, so that a second signal is heard; they go with the loop.
        await self._stop.wait()
        self._log.info("stopping: receivers first, then everything drains", at_most_s=self._shutdown_timeout_s)

    def stop(self) -> None:
        """Make ``run_until_stopped`` return; the second time: do not wait for the drain any longer."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def shutdown(self) -> None:
        """Drain and end. Safe when never started, and twice."""
        if self._is_shut_down:
            return
        self._is_shut_down = True
        self._is_ready = False
        for task in list(self._reloads):
            task.cancel()
        await asyncio.gather(*self._reloads, return_exceptions=True)
        if self._is_started:
            await self._drain()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self._stop_admin()
        self._log_ledger()

    async def _drain(self) -> None:
        """End the graph; a second signal leaves each component only its last chance."""
        loop = asyncio.get_running_loop()
        ended = asyncio.ensure_future(self._end(self._graph, loop.time() + self._shutdown_timeout_s))
        hurry = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait({ended, hurry}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not ended.done():
            self._log.warning("a second signal came: the drain is cut short")
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)
            await self._end(self._graph, loop.time())
        await asyncio.gather(ended, hurry, return_exceptions=True)

    async def reload(self, config: Config) -> bool:
        """Replace the running configuration by ``config``. Returns False if that failed; the log says why.

        If the new configuration cannot be built, nothing changes. If it cannot be started, the service rolls back to the
        previous configuration. Receivers are closed while the old graph drains, at most for the shutdown time-out;
        senders retry. Components that stay hand their state over to their successors.
        """
        async with self._reload_lock:
            try:
                planned = build(config, self._scratch())  # offline: a bad configuration is found before anything stops
            except StartError as error:
                self._log.error(
                    "the new configuration cannot be built; the previous one keeps running", error=str(error)
                )
                return False
            old, self._is_ready = self._graph, False
            states = self._hand_over(old, planned)
            await self._end(old, self._deadline_s(), states)
            self.admission.reset_limits()
            for candidate in (config, old.config):
                try:
                    await self._replace(candidate, states, old)
                except Exception as error:  # noqa: BLE001 - whatever a component raises, the process continues
                    self._log.error("a configuration cannot be started", error=str(error), is_new=candidate is config)
                    continue
                self._is_ready = True
                if candidate is config:
                    self._log.info("the new configuration is running")
                else:
                    self._log.warning("rolled back to the previous configuration")
                return candidate is config
            self._log.error("neither the new nor the previous configuration can be started; send another one")
            return False

    async def _replace(self, config: Config, states: dict[NodeKey, _HandedOver], fallback: Graph) -> None:
        """Run ``config``, continuing from ``states``. If it cannot be started, ``states`` is what ``fallback`` continues from."""
        old = self._graph
        self._graph = graph = build(config, self._environment)
        try:
            self._take_over(graph, states)
            await self._start_graph(graph)
        except BaseException:
            states.update(self._hand_over(graph, fallback))
            await self._end(graph, self._deadline_s(), states)
            raise
        kept = {node.key for node in graph.nodes()}
        for node in old.nodes():
            if node.key not in kept:
                self.telemetry.forget(*node.key)

    def _hand_over(self, graph: Graph, planned: Graph) -> dict[NodeKey, _HandedOver]:
        """The states of those components of ``graph`` that have a successor in ``planned``."""
        states: dict[NodeKey, _HandedOver] = {}
        successors = {node.key for node in planned.nodes()}
        for node in graph.nodes():
            if node.key not in successors:
                continue
            try:
                state = node.component.hand_over(planned.config.components(node.kind)[node.id].config)
            except Exception as error:  # noqa: BLE001 - a component's fault must not end the reload
                self._log.exception(
                    "a component failed to hand over its state; it is flushed instead",
                    component=node.path,
                    error=str(error),
                )
                continue
            if state is not None:
                held = [held for held in graph.held if held.node == node.key]
                states[node.key] = _HandedOver(state, held)
        return states

    def _take_over(self, graph: Graph, states: dict[NodeKey, _HandedOver]) -> None:
        """Pass ``states`` to the components of ``graph``. What no component takes is dropped and counted."""
        for node in graph.nodes():
            handed_over = states.pop(node.key, None)
            if handed_over is None:
                continue
            is_taken = False
            try:
                is_taken = node.component.take_over(handed_over.state)
            except Exception as error:  # noqa: BLE001 - a component's fault must not end the reload
                self._log.exception(
                    "a component failed to take over its predecessor's state", component=node.path, error=str(error)
                )
            if not is_taken:
                self._drop_held(handed_over.held)

    def _deadline_s(self) -> float:
        """When a graph that is ended now must have ended, on the loop's clock."""
        return asyncio.get_running_loop().time() + self._shutdown_timeout_s

    def _on_hangup(self) -> None:
        if self._load is None:
            self._log.warning("SIGHUP is ignored: this service was not told where its configuration comes from")
            return
        task = asyncio.ensure_future(self._load_and_reload(self._load))
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _load_and_reload(self, load: Callable[[], Config]) -> None:
        try:
            config = load()
        except Exception as error:  # noqa: BLE001 - a bad file must not end the process
            self._log.error("the new configuration is invalid, the old one keeps running", error=str(error))
            return
        await self.reload(config)

    def _scratch(self) -> Environment:
        """An environment for building offline: nothing of it is shown."""
        telemetry = ServiceTelemetry(
            ledger=Ledger(), clock=self._clock, version=self.version, instance_id=self.instance_id
        )
        start = self._environment.start_time_unix_nano
        return Environment(telemetry, ServiceAdmission(self._clock), self._clock, self.version, self.instance_id, start)

    # Starting and ending one graph.

    async def _start_graph(self, graph: Graph) -> None:
        for held in graph.held:
            held.entry.held = held.count
        self._detach = [self.admission.add_source(stage.held_bytes) for stage in graph.holders]
        extensions = {str(node.id): node.component for node in graph.extensions}
        self._hosts = {}
        for node in graph.nodes():
            host = self._hosts[_name(node)] = _ComponentHost(self, node, extensions)
            try:
                await node.component.start(host)
            except Exception as error:
                host.report(Status.PERMANENT_ERROR, str(error))
                message = str(error) if node.path in str(error) else f"{node.path}: {error}"
                raise StartError(message) from error
            if host.status is Status.STARTING:
                host.report(Status.OK)

    async def _end(self, graph: Graph, deadline_s: float, handed_over: Collection[NodeKey] = ()) -> None:
        """Shut everything down in the order of the data, then account for what did not leave.

        What the components ``handed_over`` hold is not lost: their successors take it.
        """
        for node in graph.nodes():
            host = self._hosts.get(_name(node))
            if host is not None:
                host.report(Status.STOPPING)
        try:
            await self._stop_all(graph.receivers, deadline_s)
            for node in reversed(graph.processors):
                await self._stop_all([node], deadline_s)
            await self._stop_all(graph.exporters, deadline_s)
            await self._stop_all(graph.extensions, deadline_s)
        finally:
            for edge in graph.edges:
                edge.cancel()
            await asyncio.sleep(0)
            for detach in self._detach:
                detach()
            self._detach = []
            self._drop_held(held for held in graph.held if held.node not in handed_over)

    async def _stop_all(self, nodes: Iterable[Node], deadline_s: float) -> None:
        await asyncio.gather(*(self._stop_one(node, deadline_s) for node in nodes))

    async def _stop_one(self, node: Node, deadline_s: float) -> None:
        try:
            async with asyncio.timeout_at(max(deadline_s, asyncio.get_running_loop().time() + _LAST_CHANCE_S)):
                await node.component.shutdown()
        except TimeoutError:
            self._log.error("a component did not end in time", component=node.path, pipeline=node.pipeline)
        except Exception as error:  # noqa: BLE001 - whatever one component raises, the others are shut down too
            self._log.exception("a component failed while shutting down", component=node.path, error=str(error))
        host = self._hosts.get(_name(node))
        if host is not None:
            host.report(Status.STOPPED)

    def _drop_held(self, held_items: Iterable[HeldItems]) -> None:
        """Count what is still held and has no way out any more as dropped."""
        for held in held_items:
            if held.entry.held is not held.count:
                continue  # a successor counts it by now
            if lost_count := held.count():
                held.entry.drop(lost_count, "shutdown")
            held.entry.held = None

    def _log_ledger(self) -> None:
        rows = self.ledger.snapshot()
        open_rows = [row.node for row in rows if row.imbalance]
        if not rows:
            return
        if open_rows:
            self._log.error("the final ledger is open", nodes=open_rows, ledger="\n" + render(rows))
        else:
            self._log.info("the final ledger", ledger="\n" + render(rows))

    # Admin, health, metrics.

    async def _start_admin(self) -> None:
        endpoint = self.config.service.telemetry.metrics.endpoint()
        if endpoint is None:
            return
        self._admin = AdminServer(
            _ComponentHost(self, None, {}), self.telemetry, self.ledger, self._routes, version=self.version
        )
        try:
            await self._admin.start(*endpoint)
        except OSError as error:
            self._admin = None
            raise StartError(error.strerror or str(error)) from error

    async def _stop_admin(self) -> None:
        if self._admin is not None:
            await self._admin.stop()
            self._admin = None

    def _routes(self) -> Mapping[str, Sequence[_Handler]]:
        routes: dict[str, list[_Handler]] = {}
        for host in self._hosts.values():
            for path, handler in host.routes.items():
                routes.setdefault(path, []).append(handler)
        return routes

    def health(self) -> list[HealthCheck]:
        """The service, each component that reported a state worth saying, and what components registered; each with its duration."""
        checks = [HealthCheck("service", self._is_ready, "" if self._is_ready else "starting or stopping")]
        for name, host in self._hosts.items():
            if host.status not in {Status.OK, Status.STARTING}:
                checks.append(HealthCheck(name, host.status in _HEALTHY, f"{host.status}: {host.message}".rstrip(": ")))
            for check_name, check in host.checks.items():
                began = time.perf_counter()
                try:
                    result = check()
                except Exception as error:  # noqa: BLE001 - a check that fails is a failed check
                    result = HealthCheck(check_name, healthy=False, message=repr(error))
                took_ms = result.duration_ms or (time.perf_counter() - began) * 1e3
                checks.append(HealthCheck(check_name, result.healthy, result.message, took_ms))
        return checks

    def ready(self) -> bool:
        """Started, and not shutting down."""
        return self._is_ready

    def _register_metrics(self) -> None:
        admission, gauge = self.admission, self.telemetry.gauge
        gauge("tailrace_memory_held_bytes", "Bytes in flight, in queues and in stages", lambda: admission.used_bytes)
        gauge(
            "tailrace_memory_limit_bytes",
            "The budget for them; above it requests are refused",
            lambda: admission.soft_bytes,
        )
        gauge(
            "tailrace_memory_refused_requests", "Requests refused for want of memory", lambda: admission.refused_count
        )
        gauge(
            "tailrace_memory_forced_collections",
            "Garbage collections forced by the memory limit",
            lambda: admission.collected_count,
        )
        gauge("tailrace_service_ready", "1 when started and not stopping", lambda: float(self._is_ready))


class _ComponentHost(Host):
    """The service as one component sees it."""

    def __init__(self, service: Service, node: Node | None, extensions: Mapping[str, Any]) -> None:
        self._service, self._node, self._extensions = service, node, extensions
        self.status, self.message = Status.STARTING, ""
        self.checks: dict[str, Callable[[], HealthCheck]] = {}
        self.routes: dict[str, _Handler] = {}

    @property
    def admission(self) -> ServiceAdmission:
        return self._service.admission

    def extension(self, component_id: str) -> Any:
        try:
            return self._extensions[component_id]
        except KeyError:
            known = ", ".join(self._extensions) or "none"
            raise KeyError(f"no extension {component_id!r} under service::extensions; there are: {known}") from None

    def health(self) -> list[HealthCheck]:
        return self._service.health()

    def ready(self) -> bool:
        return self._service.ready()

    def uptime_s(self) -> float:
        return self._service.telemetry.uptime_s()

    def add_health_check(self, name: str, check: Callable[[], HealthCheck]) -> None:
        self.checks[name] = check

    def add_admin_route(self, path: str, handler: _Handler) -> None:
        self.routes[path] = handler

    def report(self, status: Status, message: str = "") -> None:
        self.status, self.message = status, message


def _name(node: Node) -> str:
    return f"{node.kind.value}/{node.id}" + (f"@{node.pipeline}" if node.pipeline else "")


def _version() -> str:
    try:
        return importlib.metadata.version("tailrace")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return "0.0.0"


def _instance_id(config: Config) -> str:
    """``service.instance.id`` of ``service.telemetry.resource``, else a new one, as the Collector does."""
    configured = config.service.telemetry.resource_attributes().get("service.instance.id")
    return configured or str(uuid.uuid4())
