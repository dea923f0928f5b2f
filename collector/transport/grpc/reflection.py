"""gRPC's server reflection, v1 and v1alpha: clients such as grpcurl list the services and read their descriptors.

Callers are not authenticated: the descriptors are public.

Source: gRPC's doc/server-reflection.md, grpc/reflection/v1/reflection.proto.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from collector.transport.grpc.method import Aborted, Call, OpenStreaming, Writer

__all__ = ["REFLECTION_SERVICES", "Reflection", "reflection_file"]

_VERSIONS: Final = ("v1", "v1alpha")
REFLECTION_SERVICES: Final = tuple(f"grpc.reflection.{version}.ServerReflection" for version in _VERSIONS)
_MAX_REQUEST_BYTES: Final = 4096  # the request is repeated in the response


def reflection_file(version: str) -> descriptor_pb2.FileDescriptorProto:
    """Return the descriptor of ``grpc/reflection/VERSION/reflection.proto``."""
    package = f"grpc.reflection.{version}"
    file = descriptor_pb2.FileDescriptorProto(
        name=f"grpc/reflection/{version}/reflection.proto", package=package, syntax="proto3"
    )
    integer, text, message, octets = 5, 9, 11, 12

    def add(name: str, *fields: tuple[str, int, int, str, bool, bool]) -> None:
        kind = file.message_type.add(name=name)
        for field_name, number, field_type, type_name, is_repeated, is_choice in fields:
            field = kind.field.add(name=field_name, number=number, type=field_type, label=3 if is_repeated else 1)
            if type_name:
                field.type_name = f".{package}.{type_name}"
            if is_choice:
                if not kind.oneof_decl:
                    kind.oneof_decl.add(name="message_request" if name.endswith("Request") else "message_response")
                field.oneof_index = 0

    add(
        "ServerReflectionRequest",
        ("host", 1, text, "", False, False),
        ("file_by_filename", 3, text, "", False, True),
        ("file_containing_symbol", 4, text, "", False, True),
        ("file_containing_extension", 5, message, "ExtensionRequest", False, True),
        ("all_extension_numbers_of_type", 6, text, "", False, True),
        ("list_services", 7, text, "", False, True),
    )
    add(
        "ExtensionRequest",
        ("containing_type", 1, text, "", False, False),
        ("extension_number", 2, integer, "", False, False),
    )
    add(
        "ServerReflectionResponse",
        ("valid_host", 1, text, "", False, False),
        ("original_request", 2, message, "ServerReflectionRequest", False, False),
        ("file_descriptor_response", 4, message, "FileDescriptorResponse", False, True),
        ("all_extension_numbers_response", 5, message, "ExtensionNumberResponse", False, True),
        ("list_services_response", 6, message, "ListServiceResponse", False, True),
        ("error_response", 7, message, "ErrorResponse", False, True),
    )
    add("FileDescriptorResponse", ("file_descriptor_proto", 1, octets, "", True, False))
    add(
        "ExtensionNumberResponse",
        ("base_type_name", 1, text, "", False, False),
        ("extension_number", 2, integer, "", True, False),
    )
    add("ListServiceResponse", ("service", 1, message, "ServiceResponse", True, False))
    add("ServiceResponse", ("name", 1, text, "", False, False))
    add("ErrorResponse", ("error_code", 1, integer, "", False, False), ("error_message", 2, text, "", False, False))
    types = {"input_type": f".{package}.ServerReflectionRequest", "output_type": f".{package}.ServerReflectionResponse"}
    file.service.add(name="ServerReflection").method.add(
        name="ServerReflectionInfo", client_streaming=True, server_streaming=True, **types
    )
    return file


class Reflection:
    """Describes ``services`` from ``files`` (name → descriptor), which must include their dependencies."""

    def __init__(self, services: Iterable[str], files: Mapping[str, descriptor_pb2.FileDescriptorProto]) -> None:
        own = [reflection_file(version) for version in _VERSIONS]
        self.services = sorted({*services, *REFLECTION_SERVICES})
        self._files = {**files, **{file.name: file for file in own}}
        self._pool = descriptor_pool.DescriptorPool()
        added: set[str] = set()

        def add(name: str) -> None:
            if name not in added:
                added.add(name)
                for dependency in self._files[name].dependency:
                    add(dependency)
                self._pool.Add(self._files[name])

        for name in self._files:
            add(name)

    @property
    def methods(self) -> dict[str, OpenStreaming]:
        """Path → method."""
        return {f"/{service}/ServerReflectionInfo": self._opener(service) for service in REFLECTION_SERVICES}

    def _opener(self, service: str) -> OpenStreaming:
        package = service.rpartition(".")[0]
        request, response = (
            message_factory.GetMessageClass(self._pool.FindMessageTypeByName(f"{package}.ServerReflection{kind}"))
            for kind in ("Request", "Response")
        )

        def opened(_: Call, writer: Writer) -> _ReflectionCall:
            return _ReflectionCall(self, writer, request, response)

        return opened

    def answer(self, request: Any, response: Any) -> None:
        """Fill in the response to one request."""
        response.valid_host = request.host
        response.original_request.CopyFrom(request)
        query = request.WhichOneof("message_request")
        try:
            if query == "list_services":
                for service in self.services:
                    response.list_services_response.service.add(name=service)
            elif query == "file_by_filename":
                self._add_files(response, self._pool.FindFileByName(request.file_by_filename).name)
            elif query == "file_containing_symbol":
                self._add_files(response, self._file_of(request.file_containing_symbol))
            elif query == "all_extension_numbers_of_type":
                found = self._pool.FindMessageTypeByName(request.all_extension_numbers_of_type)
                response.all_extension_numbers_response.base_type_name = found.full_name
            elif query == "file_containing_extension":
                raise KeyError("extension")  # noqa: TRY301 - none of the files has extensions
            else:
                response.error_response.error_code = grpc.StatusCode.INVALID_ARGUMENT.value[0]
                response.error_response.error_message = "the request contains no supported query"
        except KeyError:
            response.error_response.error_code = grpc.StatusCode.NOT_FOUND.value[0]
            response.error_response.error_message = f"{query} not found"

    def _file_of(self, symbol: str) -> str:
        """Return the file that defines a symbol; the pool's own lookup finds neither methods nor fields.

        Raises:
            KeyError: no file defines it.
        """
        pool: Any = self._pool  # its stubs lack the files of fields
        finders: tuple[Callable[[], Any], ...] = (
            lambda: pool.FindFileContainingSymbol(symbol),
            lambda: pool.FindMethodByName(symbol).containing_service.file,
            lambda: pool.FindFieldByName(symbol).file,
        )
        for find in finders:
            with contextlib.suppress(KeyError):
                return str(find().name)
        raise KeyError(symbol)

    def _add_files(self, response: Any, name: str) -> None:
        """Add the file and all files it depends on."""
        names: dict[str, None] = {}

        def add(name: str) -> None:
            for dependency in self._files[name].dependency:
                add(dependency)
            names[name] = None

        add(name)
        response.file_descriptor_response.file_descriptor_proto.extend(
            self._files[name].SerializeToString() for name in reversed(list(names))
        )


class _ReflectionCall:
    """One call: sends a response to each request, in order."""

    def __init__(self, reflection: Reflection, writer: Writer, request: type[Any], response: type[Any]) -> None:
        self._reflection = reflection
        self._writer = writer
        self._request = request
        self._response = response

    def received(self, message: bytes) -> None:
        """See :class:`collector.transport.grpc.method.StreamingMethod`."""
        request, response = self._request(), self._response()
        if len(message) > _MAX_REQUEST_BYTES:
            raise Aborted(grpc.StatusCode.INVALID_ARGUMENT, "the request is too long", reason="too_large")
        try:
            request.ParseFromString(message)
        except DecodeError as exc:
            raise Aborted(
                grpc.StatusCode.INVALID_ARGUMENT, "not a valid ServerReflectionRequest", reason="malformed"
            ) from exc
        self._reflection.answer(request, response)
        self._writer.send(response.SerializeToString())

    def ended(self) -> None:
        """See :class:`collector.transport.grpc.method.StreamingMethod`."""
        self._writer.finish()

    def closed(self) -> None:
        """See :class:`collector.transport.grpc.method.StreamingMethod`."""
