"""The life of the service: build, start, run, reload, drain, account.

Components start downstream first, receivers last. They stop in the order of the data, receivers first, so that
everything that was taken can leave; what has not left after ``shutdown_timeout_s`` is dropped with the reason
``shutdown``, and the final ledger shows it. A reload that fails leaves the previous configuration running. Once the
service has started, only a signal ends it.
"""

import asyncio
import contextlib
import gc
import importlib.metadata
import signal
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog

from collector.api import Clock, HealthCheck, Status
from collector.service.admin import AdminServer
from collector.service.admission import ServiceAdmission
from collector.service.graph import Environment, Graph, Node, NodeKey, StartError, build
from collector.service.hand_over import States, collect_states, drop_held, pass_states
from collector.service.host import AdminHandler, ComponentHost, host_name
from collector.service.ledger import Ledger
from collector.service.process import SystemClock, raise_malloc_thresholds
from collector.service.telemetry import ServiceTelemetry
from collector.text.cache import cached_text_bytes
from config.model import Config, LogsTelemetry

__all__ = ["SHUTDOWN_TIMEOUT_S", "Service"]

SHUTDOWN_TIMEOUT_S = 30.0  # Kubernetes' default terminationGracePeriodSeconds
_LAST_CHANCE_S = 1.0  # for each remaining component when an earlier one has used up the time
_HEALTHY = frozenset({Status.STARTING, Status.OK, Status.STOPPING, Status.STOPPED, Status.RECOVERABLE_ERROR})


class Service:
    """One configuration, running. The constructor builds the graph and does no I/O.

    Raises:
        StartError: a component refuses its configuration.
    """

    def __init__(
        self,
        config: Config,
        *,
        load: Callable[[], Config] | None = None,
        configure_logs: Callable[[LogsTelemetry], None] | None = None,
        clock: Clock | None = None,
        shutdown_timeout_s: float = SHUTDOWN_TIMEOUT_S,
    ) -> None:
        """``load`` reads the configuration again on SIGHUP, which is ignored without it.

        ``configure_logs`` is called when a reload changes ``service::telemetry::logs``.
        """
        self._configure_logs = configure_logs
        self._load = load
        self._clock = clock or SystemClock()
        self._shutdown_timeout_s = shutdown_timeout_s
        self.version = _version()
        self.instance_id = _configured_instance_id(config) or str(uuid.uuid4())  # as the Collector does
        self.ledger = Ledger()
        self.telemetry = ServiceTelemetry(
            ledger=self.ledger,
            clock=self._clock,
            version=self.version,
            instance_id=self.instance_id,
            service_name=_service_name(config),
        )
        self.admission = ServiceAdmission(self._clock)
        self._environment = Environment(
            self.telemetry, self.admission, self._clock, self.version, self.instance_id, self._clock.time_unix_nano()
        )
        self._log = structlog.get_logger()
        self._graph = build(config, self._environment)
        self._hosts: dict[str, ComponentHost] = {}
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
        """The running configuration."""
        return self._graph.config

    @property
    def graph(self) -> Graph:
        """The running components."""
        return self._graph

    @property
    def admin_port(self) -> int:
        """The port of /metrics, /health and /ledger; 0 if they are not served."""
        return self._admin.port if self._admin else 0

    async def start(self) -> None:
        """Start everything.

        Raises:
            StartError: a component could not start, or the admin port is in use. What had started is shut down again.
        """
        raise_malloc_thresholds()
        self._register_metrics()
        self._is_started = True
        async with self._reload_lock:  # a reload that is requested meanwhile comes after the start
            try:
                self._admin = await self._start_admin(self.config)
                await self._start_graph(self._graph)
            except BaseException:
                await self._end(self._graph, self._deadline_s())
                await self._stop_admin()
                self._is_shut_down = True
                raise
        self._watch = asyncio.ensure_future(self.admission.watch())
        gc.collect()
        gc.freeze()  # modules and configuration live as long as the process; full collections need not visit them
        self._is_ready = True
        self._log.info(
            "the service is ready",
            version=self.version,
            pipelines=list(self.config.service.pipelines),
            admin_port=self.admin_port,
        )

    def handle_signals(self) -> None:
        """Stop on SIGTERM and SIGINT, reload on SIGHUP. Call it before ``start``: unhandled signals end the process."""
        loop = asyncio.get_running_loop()
        for number, hook in ((signal.SIGTERM, self.stop), (signal.SIGINT, self.stop), (signal.SIGHUP, self._on_hangup)):
            # Not available on this platform, or not in the main thread.
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                loop.add_signal_handler(number, hook)

    async def run_until_stopped(self) -> None:
        """Return after ``stop`` or its signals. The handlers stay: a second signal cuts the drain short."""
        self.handle_signals()
        await self._stop.wait()
        self._log.info(
            "stopping: receivers close first, then everything else drains", at_most_s=self._shutdown_timeout_s
        )

    def stop(self) -> None:
        """Make ``run_until_stopped`` return; a second call stops waiting for the drain."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def shutdown(self) -> None:
        """Drain and end. Safe if the service was never started, and when called twice."""
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
        """End the graph; after a second signal each component gets only ``_LAST_CHANCE_S``."""
        loop = asyncio.get_running_loop()
        ended = asyncio.ensure_future(self._end(self._graph, loop.time() + self._shutdown_timeout_s))
        hurry = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait({ended, hurry}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not ended.done():
            self._log.warning("a second signal arrived; the drain is cut short")
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)
            await self._end(self._graph, loop.time())
        await asyncio.gather(ended, hurry, return_exceptions=True)

    async def reload(self, config: Config) -> bool:
        """Replace the running configuration by ``config``. Returns False if that failed; the log says why.

        If the new configuration cannot be built, nothing changes. If it cannot be started, the service rolls back to
        the previous configuration. Receivers are closed while the old graph drains, at most for the shutdown time-out;
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
            try:
                admin = await self._replacing_admin(config)
            except StartError as error:
                self._log.error(
                    "the new configuration cannot be started; the previous one keeps running", error=str(error)
                )
                return False
            try:
                return await self._replace_running(config, planned, admin)
            finally:
                if admin is not self._admin:
                    await _stop(admin)

    async def _replace_running(self, config: Config, planned: Graph, admin: AdminServer | None) -> bool:
        """End the running graph and start ``config``, or the previous configuration if that fails."""
        old, self._is_ready = self._graph, False
        states = collect_states(old, planned, self._log)
        previous_id = self.instance_id
        await self._end(old, self._deadline_s(), states)
        self.admission.reset_limits()
        for candidate in (config, old.config):
            is_new = candidate is config
            self.instance_id = (_configured_instance_id(config) if is_new else "") or previous_id
            environment = replace(self._environment, instance_id=self.instance_id)
            try:
                await self._replace(candidate, states, old, environment)
            except Exception as error:  # noqa: BLE001 - whatever a component raises, the process continues
                which = "new" if is_new else "previous"
                self._log.error(f"the {which} configuration cannot be started", error=str(error))
                continue
            self._is_ready = True
            if is_new:
                await self._apply_telemetry(config, old.config, admin)
                self._log.info("the new configuration is running")
            else:
                self._log.warning("rolled back to the previous configuration")
            return is_new
        self._log.error("neither the new nor the previous configuration can be started; send another one")
        return False

    async def _replace(self, config: Config, states: States, fallback: Graph, environment: Environment) -> None:
        """Run ``config``, continuing from ``states``.

        If it cannot be started, ``states`` is what ``fallback`` continues from.
        """
        old = self._graph
        self._graph = graph = build(config, environment)
        try:
            pass_states(graph, states, self._log)
            await self._start_graph(graph)
        except BaseException:
            states.update(collect_states(graph, fallback, self._log))
            await self._end(graph, self._deadline_s(), states)
            raise
        kept = {node.key for node in graph.nodes()}
        for node in old.nodes():
            if node.key not in kept:
                self.telemetry.forget(*node.key)

    def _deadline_s(self) -> float:
        """When a graph that is ended now must have ended, on the loop's clock."""
        return asyncio.get_running_loop().time() + self._shutdown_timeout_s

    def _on_hangup(self) -> None:
        if self._load is None:
            self._log.warning("SIGHUP is ignored because the source of the configuration is not known")
            return
        task = asyncio.ensure_future(self._load_and_reload(self._load))
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _load_and_reload(self, load: Callable[[], Config]) -> None:
        try:
            config = load()
        except Exception as error:  # noqa: BLE001 - a bad file must not end the process
            self._log.error("the new configuration is invalid; the previous one keeps running", error=str(error))
            return
        await self.reload(config)

    def _scratch(self) -> Environment:
        """An environment for building a graph offline; its metrics are shown nowhere."""
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
            host = self._hosts[host_name(node)] = ComponentHost(self, extensions)
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
            host = self._hosts.get(host_name(node))
            if host is not None:
                host.report(Status.STOPPING)
        try:
            await self._stop_all(graph.receivers, deadline_s)
            for node in reversed(graph.processors):
                await self._stop_all([node], deadline_s)
            await asyncio.gather(*(edge.drain(deadline_s) for edge in graph.edges))
            await self._stop_all(graph.exporters, deadline_s)
            await self._stop_all(graph.extensions, deadline_s)
        finally:
            await asyncio.gather(*(edge.cancel() for edge in graph.edges))
            for detach in self._detach:
                detach()
            self._detach = []
            drop_held(held for held in graph.held if held.node not in handed_over or held.is_in_flight)

    async def _stop_all(self, nodes: Iterable[Node], deadline_s: float) -> None:
        await asyncio.gather(*(self._stop_one(node, deadline_s) for node in nodes))

    async def _stop_one(self, node: Node, deadline_s: float) -> None:
        try:
            async with asyncio.timeout_at(max(deadline_s, asyncio.get_running_loop().time() + _LAST_CHANCE_S)):
                await node.component.shutdown()
        except TimeoutError:
            self._log.error("a component did not shut down in time", component=node.path, pipeline=node.pipeline)
        except Exception as error:  # noqa: BLE001 - whatever one component raises, the others are shut down too
            self._log.exception("a component failed while shutting down", component=node.path, error=str(error))
        host = self._hosts.get(host_name(node))
        if host is not None:
            host.report(Status.STOPPED)

    def _log_ledger(self) -> None:
        """One event per node and signal, so that every log encoding stays readable and can be searched."""
        for row in self.ledger.snapshot():
            if row.imbalance:
                self._log.error("the final ledger is not balanced", **row.log_fields())
            else:
                self._log.info("the final ledger", **row.log_fields())

    # Admin, health, metrics.

    async def _start_admin(self, config: Config) -> AdminServer | None:
        endpoint = config.service.telemetry.metrics.endpoint()
        if endpoint is None:
            return None
        admin = AdminServer(ComponentHost(self, {}), self.telemetry, self.ledger, self._routes, version=self.version)
        try:
            await admin.start(*endpoint)
        except OSError as error:
            raise StartError(error.strerror or str(error)) from error
        return admin

    async def _stop_admin(self) -> None:
        admin, self._admin = self._admin, None
        await _stop(admin)

    async def _replacing_admin(self, config: Config) -> AdminServer | None:
        """The admin server for ``config`` if it listens elsewhere than the present one; it serves beside that for now.

        None if the port stays the same: two servers cannot share it, so they change places in ``_apply_telemetry``.

        Raises:
            StartError: the new address cannot be used.
        """
        new, old = config.service.telemetry.metrics.endpoint(), self.config.service.telemetry.metrics.endpoint()
        if new == old or _is_same_port(new, old):
            return None
        return await self._start_admin(config)

    async def _apply_telemetry(self, config: Config, previous: Config, admin: AdminServer | None) -> None:
        """Apply what a reload has changed in ``service::telemetry``."""
        new, old = config.service.telemetry, previous.service.telemetry
        if _is_same_port(new.metrics.endpoint(), old.metrics.endpoint()):
            await self._stop_admin()
            for candidate in (config, previous):
                try:
                    self._admin = await self._start_admin(candidate)
                except StartError as error:
                    self._log.error("service::telemetry::metrics cannot be applied", error=str(error))
                else:
                    break
        elif new.metrics.endpoint() != old.metrics.endpoint():
            replaced, self._admin = self._admin, admin
            await _stop(replaced)
        if new.logs != old.logs and self._configure_logs is not None:
            try:
                self._configure_logs(new.logs)
            except OSError as error:
                self._log.error("service::telemetry::logs cannot be applied; the log stays as it was", error=str(error))
        self.telemetry.identify(instance_id=self.instance_id, service_name=_service_name(config))

    def _routes(self) -> Mapping[str, Sequence[AdminHandler]]:
        routes: dict[str, list[AdminHandler]] = {}
        for host in self._hosts.values():
            for path, handler in host.routes.items():
                routes.setdefault(path, []).append(handler)
        return routes

    def health(self) -> list[HealthCheck]:
        """The checks of the service, of components that reported a problem, and those that components registered."""
        checks = [HealthCheck("service", self._is_ready, "" if self._is_ready else "starting or stopping")]
        memory = self.admission.health()
        if memory.message:
            checks.append(memory)
        for name, host in self._hosts.items():
            if host.status not in {Status.OK, Status.STARTING}:
                checks.append(HealthCheck(name, host.status in _HEALTHY, f"{host.status}: {host.message}".rstrip(": ")))
            for check_name, check in host.checks.items():
                began = time.perf_counter()
                try:
                    result = check()
                except Exception as error:  # noqa: BLE001 - a check that raises is a failed check
                    result = HealthCheck(check_name, healthy=False, message=repr(error))
                took_ms = result.duration_ms or (time.perf_counter() - began) * 1e3
                checks.append(HealthCheck(check_name, result.healthy, result.message, took_ms))
        return checks

    def ready(self) -> bool:
        """Whether it has started and is not shutting down."""
        return self._is_ready

    def _register_metrics(self) -> None:
        admission, gauge = self.admission, self.telemetry.gauge
        gauge(
            "tailrace_text_cache_bytes",
            "Size of all caches that are keyed by text from outside",
            lambda: float(cached_text_bytes()),
        )
        gauge("tailrace_memory_held_bytes", "Bytes in flight, in queues and in stages", lambda: admission.used_bytes)
        gauge(
            "tailrace_memory_limit_bytes",
            "Limit of the bytes held; requests above it are refused",
            lambda: admission.soft_bytes,
        )
        gauge(
            "tailrace_memory_refused_requests",
            "Requests refused because the memory limit was reached",
            lambda: admission.refused_count,
        )
        gauge(
            "tailrace_memory_forced_collections",
            "Garbage collections forced by the memory limit",
            lambda: admission.collected_count,
        )
        gauge(
            "tailrace_service_ready",
            "1 while the service is running, 0 while it starts or stops",
            lambda: float(self._is_ready),
        )


def _version() -> str:
    try:
        return importlib.metadata.version("tailrace")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return "0.0.0"


async def _stop(admin: AdminServer | None) -> None:
    if admin is not None:
        await admin.stop()


def _is_same_port(a: tuple[str, int] | None, b: tuple[str, int] | None) -> bool:
    """Whether the two are different addresses with one port."""
    return a is not None and b is not None and a[0] != b[0] and a[1] == b[1] != 0


def _service_name(config: Config) -> str:
    return config.service.telemetry.resource_attributes().get("service.name") or "tailrace"


def _configured_instance_id(config: Config) -> str:
    """``service.instance.id`` of ``service.telemetry.resource``; empty if it is not configured."""
    return config.service.telemetry.resource_attributes().get("service.instance.id") or ""
