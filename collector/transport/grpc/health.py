"""gRPC's health service, ``Check`` and ``Watch``, for load balancers and probes; and its descriptor, for reflection.

Callers are not authenticated: the service reveals only whether the process serves.

Source: gRPC's doc/health-checking.md, grpc/health/v1/health.proto.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from collector.transport.grpc.method import Aborted, Call, OpenStreaming, Writer

__all__ = ["HEALTH_FILE", "HEALTH_SERVICE", "Health"]

HEALTH_SERVICE: Final = "grpc.health.v1.Health"
_SERVING: Final = 1
_NOT_SERVING: Final = 2
_SERVICE_UNKNOWN: Final = 3
_POLL_S: Final = 1.0
_MAX_NAME_CHARS: Final = 200


def _file() -> descriptor_pb2.FileDescriptorProto:
    field, text, enum = descriptor_pb2.FieldDescriptorProto, 9, 14
    file = descriptor_pb2.FileDescriptorProto(
        name="grpc/health/v1/health.proto", package="grpc.health.v1", syntax="proto3"
    )
    file.message_type.add(name="HealthCheckRequest").field.add(
        name="service", number=1, type=text, label=field.LABEL_OPTIONAL
    )
    response = file.message_type.add(name="HealthCheckResponse")
    names = response.enum_type.add(name="ServingStatus")
    for number, name in enumerate(("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")):
        names.value.add(name=name, number=number)
    type_name = ".grpc.health.v1.HealthCheckResponse.ServingStatus"
    response.field.add(name="status", number=1, type=enum, type_name=type_name, label=field.LABEL_OPTIONAL)
    service = file.service.add(name="Health")
    types = {"input_type": ".grpc.health.v1.HealthCheckRequest", "output_type": ".grpc.health.v1.HealthCheckResponse"}
    service.method.add(name="Check", **types)
    service.method.add(name="Watch", server_streaming=True, **types)
    return file


HEALTH_FILE: Final = _file()
_pool: Final = (
    descriptor_pool.DescriptorPool()
)  # a separate one: another package may add the same file to the default pool
_pool.Add(HEALTH_FILE)
_Request: Final = message_factory.GetMessageClass(_pool.FindMessageTypeByName("grpc.health.v1.HealthCheckRequest"))
_Response: Final = message_factory.GetMessageClass(_pool.FindMessageTypeByName("grpc.health.v1.HealthCheckResponse"))


class Health:
    """Reports what ``is_serving`` returns for the name of a service at the time; None: there is no such service."""

    def __init__(self, is_serving: Callable[[str], bool | None]) -> None:
        self._is_serving = is_serving
        self._watchers: set[_Watch] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    @property
    def methods(self) -> dict[str, OpenStreaming]:
        """Path → method."""
        return {
            f"/{HEALTH_SERVICE}/Check": lambda _, writer: _Check(self, writer),
            f"/{HEALTH_SERVICE}/Watch": self._watch,
        }

    def status(self, service: str) -> int:
        """Return the ServingStatus of a service."""
        is_serving = self._is_serving(service)
        if is_serving is None:
            return _SERVICE_UNKNOWN
        return _SERVING if is_serving and not self._is_closed else _NOT_SERVING

    def close(self) -> None:
        """Report NOT_SERVING to all watchers and end their calls, which would otherwise delay the shutdown."""
        self._is_closed = True
        for watcher in list(self._watchers):
            watcher.send_if_changed()
            watcher.writer.finish()

    def remove_watcher(self, watcher: "_Watch") -> None:
        """Forget a watcher whose call has ended."""
        self._watchers.discard(watcher)

    def _watch(self, _: Call, writer: Writer) -> "_Watch":
        watcher = _Watch(self, writer)
        self._watchers.add(watcher)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_POLL_S, self._poll)
        return watcher

    def _poll(self) -> None:
        self._timer = None
        for watcher in list(self._watchers):
            watcher.send_if_changed()
        if self._watchers:
            self._timer = asyncio.get_running_loop().call_later(_POLL_S, self._poll)


class _OneRequest:
    """A call with one request message."""

    def __init__(self, health: Health, writer: Writer) -> None:
        self.health = health
        self.writer = writer
        self.service: str | None = None

    def received(self, message: bytes) -> None:
        """See :class:`collector.transport.grpc.method.StreamingMethod`."""
        if self.service is not None:
            raise Aborted(grpc.StatusCode.INTERNAL, "more than one request message", reason="framing")
        request: Any = _Request()
        try:
            request.ParseFromString(message)
        except DecodeError as exc:
            raise Aborted(grpc.StatusCode.INTERNAL, "not a valid HealthCheckRequest", reason="malformed") from exc
        self.service = request.service

    def closed(self) -> None:
        """See :class:`collector.transport.grpc.method.StreamingMethod`."""

    def send(self, status: int) -> None:
        """Send a response with ``status``."""
        self.writer.send(_Response(status=status).SerializeToString())

    def requested_service(self) -> str:
        """Return the service that the client asked for."""
        if self.service is None:
            raise Aborted(grpc.StatusCode.INTERNAL, "no request message", reason="framing")
        return self.service


class _Check(_OneRequest):
    def ended(self) -> None:
        """See :class:`collector.transport.grpc.method.StreamingMethod`."""
        service = self.requested_service()
        status = self.health.status(service)
        if status == _SERVICE_UNKNOWN:
            raise Aborted(
                grpc.StatusCode.NOT_FOUND, f"unknown service {service[:_MAX_NAME_CHARS]!r}", reason="unknown_service"
            )
        self.send(status)
        self.writer.finish()


class _Watch(_OneRequest):
    _sent_status = 0

    def ended(self) -> None:
        """See :class:`collector.transport.grpc.method.StreamingMethod`."""
        self.requested_service()
        self.send_if_changed()

    def send_if_changed(self) -> None:
        """Send the status if it differs from the last one sent."""
        if self.service is None:
            return
        status = self.health.status(self.service)
        if status != self._sent_status:
            self._sent_status = status
            self.send(status)

    def closed(self) -> None:
        """See :class:`collector.transport.grpc.method.StreamingMethod`."""
        self.health.remove_watcher(self)
