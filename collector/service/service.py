"""The life of the service: build, start, run, reload, drain, account.

A reload that fails leaves the previous configuration running. Once the service has started, only a signal ends it.
What the single steps do: ``lifecycle`` and ``exchange``.
"""

import asyncio
import contextlib
import gc
import importlib.metadata
import signal
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import structlog

from collector.api import Clock, HealthCheck, Overview, Status
from collector.service.admin import AdminServer
from collector.service.admin_port import AdminPort
from collector.service.admission import ServiceAdmission, register_memory_metrics
from collector.service.exchange import Exchange
from collector.service.graph import Environment, Graph, StartError, build
from collector.service.host import AdminHandler, ComponentHost
from collector.service.ledger import Ledger
from collector.service.lifecycle import LAST_CHANCE_S, Lifecycle
from collector.service.process import SystemClock, raise_malloc_thresholds
from collector.service.sockets import ListeningSockets
from collector.service.telemetry import ServiceTelemetry
from collector.text.cache import cached_text_bytes
from collector.text.own_log import UNSAMPLED
from config.dump import effective
from config.errors import ConfigErrors
from config.model import Config, LogsTelemetry

__all__ = ["Service"]

_DRAINING_MAX: Final = 3
"""Old graphs that drain at a time; before a further reload the oldest one has to end within the shutdown timeout."""
_ERRORS = frozenset({Status.RECOVERABLE_ERROR, Status.PERMANENT_ERROR, Status.FATAL_ERROR})
_HEALTHY = frozenset({Status.STARTING, Status.OK, Status.STOPPING, Status.STOPPED, Status.RECOVERABLE_ERROR})
_INVALID: Final = "the new configuration is invalid; the previous one keeps running"
_UNBUILDABLE: Final = "the new configuration cannot be built; the previous one keeps running"
_UNSTARTABLE: Final = "the new configuration cannot be started; the previous one keeps running"


class Service:
    """One configuration, running. The constructor builds the graph and does no I/O.

    Raises:
        BuildError: components refuse their configuration.
    """

    def __init__(
        self,
        config: Config,
        *,
        load: Callable[[], Config] | None = None,
        configure_logs: Callable[[LogsTelemetry], None] | None = None,
        clock: Clock | None = None,
        shutdown_timeout_s: float | None = None,
    ) -> None:
        """``load`` reads the configuration again for a reload, which is impossible without it.

        ``configure_logs`` is called when a reload changes ``service::telemetry::logs``. ``shutdown_timeout_s`` takes
        the place of ``service::shutdown_timeout``.
        """
        self._configure_logs = configure_logs
        self._load = load
        self._clock = clock or SystemClock()
        self._fixed_timeout_s = shutdown_timeout_s
        self.version = _version()
        self.instance_id = _configured_instance_id(config) or str(uuid.uuid4())  # as the Collector does
        self.ledger = Ledger()
        self.telemetry = ServiceTelemetry(
            ledger=self.ledger,
            clock=self._clock,
            resource=(resource := _resource(config, self.version, self.instance_id)),
            constant=_constant_labels(config, resource),
        )
        self.admission = ServiceAdmission(self._clock)
        self.sockets = ListeningSockets()
        self._environment = Environment(
            self.telemetry, self.admission, self._clock, self.version, self.instance_id, self._clock.time_unix_nano()
        )
        self._log = structlog.get_logger()
        self._graph = build(config, self._environment)
        self._lifecycle = Lifecycle(self, self._log)
        self._admin = AdminPort(self._make_admin_server, self._log)
        self._watch: asyncio.Task[None] | None = None
        self._is_started = self._is_ready = self._is_shut_down = False
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._reload_lock = asyncio.Lock()
        self._reloads: set[asyncio.Task[str]] = set()
        self._next_reload: asyncio.Task[str] | None = None  # requested, and not begun
        self._reloading: asyncio.Task[str] | None = None
        self._is_swapping = False  # until then a reload can be given up
        self._draining: dict[asyncio.Task[None], Exchange] = {}
        self._is_last_reload_successful = True
        self._last_success_s = 0.0

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
        return self._admin.port

    async def start(self) -> None:
        """Start everything.

        Raises:
            StartError: a component could not start, or the admin port is in use. What had started is shut down again.
        """
        raise_malloc_thresholds()
        self._register_metrics()
        self._is_started = True
        async with self._reload_lock:  # a reload that is requested meanwhile comes after the start
            graph = self._graph
            try:
                await self._admin.start(self.config.service.telemetry.metrics.endpoint())
                graph.connect()
                for node in graph.nodes():
                    node.telemetry.show()
                await self._lifecycle.start(graph.nodes(), {str(node.id): node.component for node in graph.extensions})
            except BaseException:
                await self._lifecycle.end(graph.nodes(), self._deadline_s())
                await self._admin.stop()
                self._is_shut_down = True
                raise
        self._watch = asyncio.ensure_future(self.admission.watch())
        gc.collect()
        gc.freeze()  # modules and configuration live as long as the process; full collections need not visit them
        self._is_ready = True
        self._last_success_s = self._clock.time_unix_nano() / 1e9
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
        self._log.info("stopping: receivers close first, then everything else drains", at_most_s=self._timeout_s)

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
        await self._admin.stop()
        self._log_ledger()

    async def _drain(self) -> None:
        """End everything; after a second signal each component gets only one last second."""
        ended = asyncio.ensure_future(self._end_all(self._deadline_s()))
        hurry = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait({ended, hurry}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not ended.done():
            self._log.warning("a second signal arrived; the drain is cut short")
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)
            await self._end_all(asyncio.get_running_loop().time())
        await asyncio.gather(hurry, return_exceptions=True)
        if not ended.cancelled():
            ended.result()

    async def _end_all(self, deadline_s: float) -> None:
        """End a reload in progress, the running graph and the old ones that still drain."""
        reloading = self._reloading
        if reloading is not None and not self._is_swapping:
            reloading.cancel()
            await asyncio.gather(reloading, return_exceptions=True)
        elif reloading is not None:
            await asyncio.wait({reloading}, timeout=max(0.0, deadline_s - asyncio.get_running_loop().time()))
            reloading.cancel()  # a component takes too long to start or to end
            await asyncio.gather(reloading, return_exceptions=True)
        await asyncio.gather(self._lifecycle.end(self._graph.nodes(), deadline_s), self._end_draining(deadline_s))

    async def _end_draining(self, deadline_s: float) -> None:
        await asyncio.gather(*(self._end_drain(*drain, deadline_s) for drain in list(self._draining.items())))

    async def _end_drain(self, task: asyncio.Task[None], exchange: Exchange, deadline_s: float) -> None:
        """Let what drains after a reload end by ``deadline_s``."""
        exchange.hasten(deadline_s)
        # What uses its time to the end is left alone while it accounts for the remainder.
        await asyncio.wait({task}, timeout=max(0.0, deadline_s - asyncio.get_running_loop().time()) + LAST_CHANCE_S)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await self._lifecycle.end(exchange.leaving, deadline_s)

    def _log_ledger(self) -> None:
        """One event per node and signal, so that every log encoding stays readable and can be searched."""
        for row in self.ledger.snapshot():
            if row.imbalance:
                self._log.error("the final ledger is not balanced", **row.log_fields(), **UNSAMPLED)
            else:
                self._log.info("the final ledger", **row.log_fields(), **UNSAMPLED)

    @property
    def _timeout_s(self) -> float:
        """How long a graph may drain."""
        return self.config.service.drain.shutdown_timeout if self._fixed_timeout_s is None else self._fixed_timeout_s

    def _deadline_s(self) -> float:
        """When a graph that is ended now must have ended, on the loop's clock."""
        return asyncio.get_running_loop().time() + self._timeout_s

    # Reload.

    def request_reload(self) -> asyncio.Task[str]:
        """Load the configuration and run it. The result is empty, or says why the previous one keeps running.

        Requests that arrive before the reload begins share it.
        """
        if self._next_reload is None or self._next_reload.done():
            self._next_reload = asyncio.ensure_future(self._load_and_reload())
            self._reloads.add(self._next_reload)
            self._next_reload.add_done_callback(self._reloads.discard)
        return self._next_reload

    async def reload(self, config: Config) -> bool:
        """Replace the running configuration by ``config``. Returns False if that failed; the log says why.

        Components whose configuration is the same stay as they are; the others are exchanged without refusing a
        request, and what is replaced drains in the background. If a component cannot be built or started, the previous
        configuration keeps running.
        """
        async with self._reload_lock:
            return not await self._reload(config)

    def _on_hangup(self) -> None:
        if self._load is None:
            self._log.warning("SIGHUP is ignored because the source of the configuration is not known")
        else:
            self.request_reload()

    async def _load_and_reload(self) -> str:
        async with self._reload_lock:
            self._next_reload = None
            if self._load is None:
                return "the source of the configuration is not known"
            try:
                config = self._load()
            except Exception as error:  # noqa: BLE001 - a bad file must not end the process
                return self._reload_failed(_INVALID, error)
            return await self._reload(config)

    async def _reload(self, config: Config) -> str:
        """Reload in a task of its own, so that nobody leaves it half done who stops waiting for it."""
        if self._is_shut_down:
            return "the service is shutting down"
        self._reloading = asyncio.ensure_future(self._exchange_graphs(config))
        try:
            return await asyncio.shield(self._reloading)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # the caller stops waiting
                raise
            return "the service is shutting down"
        finally:
            if self._reloading.done():
                self._reloading, self._is_swapping = None, False

    def _reload_failed(self, message: str, error: Exception) -> str:
        self._is_last_reload_successful = False
        if isinstance(error, ConfigErrors):
            for warning in error.warnings:
                self._log.warning("the new configuration has a warning", warning=str(warning), **UNSAMPLED)
        for finding in error.errors if isinstance(error, ConfigErrors) else (error,):
            self._log.error(message, error=str(finding), **UNSAMPLED)
        return f"{message}: {error}"

    async def _exchange_graphs(self, config: Config) -> str:
        old = self._graph
        if len(self._draining) >= _DRAINING_MAX:
            ((task, oldest), *_) = self._draining.items()
            await self._end_drain(task, oldest, self._deadline_s())
        instance_id = _configured_instance_id(config) or self.instance_id
        try:
            new = build(config, replace(self._environment, instance_id=instance_id), old)
            exchange = Exchange(old, new, self._lifecycle, timeout_s=self._timeout_s, log=self._log)
        except Exception as error:  # noqa: BLE001 - whatever a component raises, the process continues
            self._retain_telemetry()
            return self._reload_failed(_UNBUILDABLE, error)
        await self._wait_for_sole_use(exchange)
        try:
            await self._admin.prepare(config.service.telemetry.metrics.endpoint())
            await exchange.prepare()
        except BaseException as error:
            await asyncio.gather(exchange.undo(), self._admin.undo())
            self._retain_telemetry()
            if isinstance(error, StartError):
                return self._reload_failed(_UNSTARTABLE, error)
            raise
        self._is_swapping = True
        try:
            await exchange.swap()
        except asyncio.CancelledError:  # the service ends: both graphs have to be ended
            exchange.connect()
            self._begin_draining(exchange)
            await self._admin.undo()
            raise
        except Exception as error:  # noqa: BLE001 - as above
            await self._admin.undo()
            await self._restore(exchange, old)
            return self._reload_failed(_UNSTARTABLE, error)
        self.instance_id = instance_id
        self._begin_draining(exchange)
        await self._apply_telemetry(config, old.config)
        self._is_last_reload_successful = True
        self._is_ready = not self._is_shut_down
        self._last_success_s = self._clock.time_unix_nano() / 1e9
        self._log.info(
            "the new configuration is running",
            kept_components=len(new.nodes()) - len(exchange.coming),
            started_components=len(exchange.coming),
        )
        return ""

    def _begin_draining(self, exchange: Exchange) -> None:
        """Make the new graph the running one; the old one drains in the background."""
        self._graph = exchange.new
        task = asyncio.ensure_future(exchange.retire())
        self._draining[task] = exchange

        def on_drained(task: asyncio.Task[None]) -> None:
            del self._draining[task]
            self._retain_telemetry()
            if not task.cancelled() and (error := task.exception()) is not None:
                self._log.error("the previous configuration could not be drained completely", exc_info=error)

        task.add_done_callback(on_drained)

    async def _wait_for_sole_use(self, exchange: Exchange) -> None:
        """Wait for components of earlier graphs that still use a file or a storage that a new component needs."""
        needed = exchange.needs()
        users = [drain for drain in self._draining.items() if drain[1].uses() & needed]
        await asyncio.gather(*(self._end_drain(*drain, self._deadline_s()) for drain in users))

    async def _restore(self, exchange: Exchange, old: Graph) -> None:
        """Return to the previous configuration after a reload that had begun to end it."""
        try:
            back = build(old.config, replace(self._environment, instance_id=self.instance_id), old)
            self._graph = back
            await exchange.restore(back)
        except Exception as error:  # noqa: BLE001 - as above
            self._is_ready = False
            self._log.error(
                "neither the new nor the previous configuration can be started; send another one", error=str(error)
            )
            for door in self._graph.doors.values():
                door.close()
        else:
            self._log.warning("rolled back to the previous configuration")
        self._retain_telemetry()

    def _retain_telemetry(self) -> None:
        """Stop showing the metrics of components that neither run nor drain."""
        graphs = [self._graph.nodes(), *(exchange.leaving for exchange in self._draining.values())]
        self.telemetry.retain({node.key for nodes in graphs for node in nodes})

    # Admin, health, metrics.

    async def _apply_telemetry(self, config: Config, previous: Config) -> None:
        """Apply what a reload has changed in ``service::telemetry``."""
        await self._admin.apply()
        new, old = config.service.telemetry, previous.service.telemetry
        if new.logs != old.logs and self._configure_logs is not None:
            try:
                self._configure_logs(new.logs)
            except OSError as error:
                self._log.error("service::telemetry::logs cannot be applied; the log stays as it was", error=str(error))
        resource = _resource(config, self.version, self.instance_id)
        self.telemetry.identify(resource, _constant_labels(config, resource))

    def _make_admin_server(self) -> AdminServer:
        return AdminServer(
            ComponentHost(self, {}),
            self.telemetry,
            self.ledger,
            self._routes,
            self.unready_reasons,
            version=self.version,
            reload=self.request_reload if self._load is not None else None,
        )

    def _hosts(self) -> dict[str, ComponentHost]:
        """The hosts of the running components, by name."""
        return {node.name: node.host for node in self._graph.nodes() if node.host is not None}

    def _routes(self) -> Mapping[tuple[str, str], Sequence[AdminHandler]]:
        """What components registered, by method and path."""
        routes: dict[tuple[str, str], list[AdminHandler]] = {}
        for host in self._hosts().values():
            for method, handlers in (("GET", host.routes), ("POST", host.actions)):
                for path, handler in handlers.items():
                    routes.setdefault((method, path), []).append(handler)
        return routes

    def health(self) -> list[HealthCheck]:
        """The checks of the service, of components that reported a problem, and those that components registered."""
        checks = [HealthCheck("service", self._is_ready, "" if self._is_ready else "starting or stopping")]
        memory = self.admission.health()
        if memory.message:
            checks.append(memory)
        for name, host in self._hosts().items():
            if host.status not in {Status.OK, Status.STARTING}:
                text = f"{host.status}: {host.message}".rstrip(": ")
                failing_s = self.telemetry.uptime_s() - host.status_since_s if host.status in _ERRORS else 0.0
                checks.append(HealthCheck(name, host.status in _HEALTHY, text, status=host.status, failing_s=failing_s))
            for check_name, check in host.checks.items():
                began = time.perf_counter()
                try:
                    result = check()
                except Exception as error:  # noqa: BLE001 - a check that raises is a failed check
                    result = HealthCheck(check_name, healthy=False, message=repr(error))
                took_ms = result.duration_ms or (time.perf_counter() - began) * 1e3
                checks.append(replace(result, name=check_name, duration_ms=took_ms))
        return checks

    def unready_reasons(self) -> list[str]:
        """Why requests should go elsewhere; empty if the service is ready."""
        if not self._is_ready:
            return ["starting or stopping"]
        checks = (check for host in self._hosts().values() for check in host.readiness_checks)
        return [reason for check in checks if (reason := check())]

    def ready(self) -> bool:
        """Whether it has started and is not shutting down."""
        return self._is_ready

    def overview(self) -> Overview:
        """The pipelines, components and counts, for extensions that show them."""
        service = self.config.service
        return Overview(
            version=self.version,
            instance_id=self.instance_id,
            start_time_unix_nano=self._environment.start_time_unix_nano,
            pipelines=tuple(pipeline.overview() for pipeline in service.pipelines.values()),
            extensions=tuple(map(str, service.extensions)),
            statuses={name: f"{host.status}: {host.message}".rstrip(": ") for name, host in self._hosts().items()},
            ledger=tuple(row.to_json() for row in self.ledger.snapshot()),
        )

    def configuration(self) -> Mapping[str, Any]:
        """The running configuration, secrets redacted."""
        return effective(self.config)

    def _register_metrics(self) -> None:
        register_memory_metrics(self.telemetry, self.admission)
        gauge = self.telemetry.gauge
        gauge(
            "tailrace_text_cache_bytes",
            "Size of all caches that are keyed by text from outside",
            lambda: float(cached_text_bytes()),
        )
        gauge(
            "tailrace_service_left_out_components",
            "Configured components that --skip-missing has left out because they do not exist here",
            lambda: float(len(self.config.left_out)),
        )
        gauge(
            "tailrace_service_affected_pipelines",
            "Configured pipelines that do not run, or not with all of their components, because of --skip-missing",
            lambda: float(len(self.config.changed_pipelines)),
        )
        gauge(
            "tailrace_service_ready",
            "1 while the service is running, 0 while it starts or stops",
            lambda: float(self._is_ready),
        )
        gauge("tailrace_service_tasks", "Tasks of the event loop", lambda: float(len(asyncio.all_tasks())))
        gauge(
            "tailrace_service_draining_graphs",
            "Previous configurations whose components are still draining after a reload",
            lambda: float(len(self._draining)),
        )
        gauge(
            "tailrace_config_last_reload_successful",
            "1 if the configuration that was loaded last is running, 0 if it was refused",
            lambda: float(self._is_last_reload_successful),
        )
        gauge(
            "tailrace_config_last_reload_success_timestamp_seconds",
            "When the running configuration was started",
            lambda: self._last_success_s,
        )


def _version() -> str:
    try:
        return importlib.metadata.version("tailrace")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return "0.0.0"


def _resource(config: Config, version: str, instance_id: str) -> dict[str, str]:
    """The attributes of the service: its defaults with what ``service.telemetry.resource`` sets or removes."""
    attributes: dict[str, str | None] = {
        "service.name": "tailrace",
        "service.version": version,
        "service.instance.id": instance_id,
    }
    attributes |= config.service.telemetry.resource_attributes()
    return {name: value for name, value in attributes.items() if value is not None}


def _constant_labels(config: Config, resource: Mapping[str, str]) -> list[str]:
    """The names of the attributes that are labels of every own metric."""
    labels = config.service.telemetry.metrics.constant_labels()
    return [] if labels is None else [name for name in resource if labels.selects(name)]


def _configured_instance_id(config: Config) -> str:
    """``service.instance.id`` of ``service.telemetry.resource``; empty if it is not configured."""
    return config.service.telemetry.resource_attributes().get("service.instance.id") or ""
