"""OTLP over gRPC: the three Export methods, and their descriptors for server reflection.

Source: opentelemetry-proto collector/{trace,metrics,logs}/v1/*_service.proto; OTLP specification "OTLP/gRPC".
"""

from collections.abc import Mapping
from functools import partial

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from collector.api import Receipt, ReceiverOutput
from collector.model import Signal
from collector.otlp.names import GRPC_METHODS
from collector.transport.context import SenderContexts
from collector.transport.failure import UNREAD_REASONS
from collector.transport.grpc.answers import answer
from collector.transport.grpc.method import Call, Method, Reply
from receivers.otlp.responses import partial_success_proto

__all__ = ["OTLPOverGRPC", "descriptor_files"]


class OTLPOverGRPC:
    """The methods of the gRPC server."""

    def __init__(self, outputs: Mapping[Signal, ReceiverOutput], senders: SenderContexts) -> None:
        self._senders = senders
        by_signal = {signal: output.for_transport("grpc") for signal, output in outputs.items()}
        self.methods: dict[str, Method] = {
            GRPC_METHODS[signal]: self._method(output) for signal, output in by_signal.items()
        }
        self._outputs = {self.methods[GRPC_METHODS[signal]]: output for signal, output in by_signal.items()}

    def refuse_unread(self, method: Method, reason: str) -> None:
        """Count a request for ``method`` that could not be read for ``reason``."""
        if reason in UNREAD_REASONS:
            self._outputs[method].refuse_unread(reason)

    def _method(self, output: ReceiverOutput) -> Method:
        consume_request, context_of = output.try_consume_request, self._senders.of_call

        def export(message: bytes, call: Call, reply: Reply) -> None:
            if message:
                consume_request(message, call.cached or context_of(call), partial(_answer, reply))
            else:
                reply(b"")  # an empty request succeeds and does not enter a pipeline

        return export


def _answer(reply: Reply, outcome: Receipt | Exception) -> None:
    """Respond to a call with the outcome of its request."""
    if isinstance(outcome, Receipt) and (outcome.rejected_count or outcome.message):
        reply(partial_success_proto(outcome))
    else:
        answer(reply, outcome)


def descriptor_files() -> dict[str, descriptor_pb2.FileDescriptorProto]:
    """The descriptors of the files that define OTLP's services, and of the files they import, by name."""
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    def add(descriptor: FileDescriptor) -> None:
        if descriptor.name not in files:
            files[descriptor.name] = descriptor_pb2.FileDescriptorProto()
            descriptor.CopyToProto(files[descriptor.name])
            for dependency in descriptor.dependencies:
                add(dependency)

    for module in (trace_service_pb2, metrics_service_pb2, logs_service_pb2):
        add(module.DESCRIPTOR)
    return files
