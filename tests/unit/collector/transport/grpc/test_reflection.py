"""Server reflection, through the server: what grpcurl and similar clients query."""

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

import http2_peer
from collector.transport.grpc.framing import MessageReader, encode_message
from collector.transport.grpc.reflection import reflection_file
from receivers.otlp.over_grpc import descriptor_files

EXPORT = "opentelemetry.proto.collector.trace.v1.TraceService"


@pytest.fixture
def client(grpc_server):
    serving = grpc_server(files=descriptor_files())
    return serving.connect()


@pytest.fixture(params=["v1", "v1alpha"])
def ask(request, client):
    """``ask(field=value, …)`` returns the responses of one call with a request for each."""
    version = request.param
    pool = descriptor_pool.DescriptorPool()
    pool.Add(reflection_file(version))
    package = f"grpc.reflection.{version}"
    message, response = (
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.ServerReflection{kind}"))
        for kind in ("Request", "Response")
    )

    def call(**asked):
        body = b"".join(encode_message(message(**{name: value}).SerializeToString()) for name, value in asked.items())
        fields, answer, _ = client.answer(client.request(f"/{package}.ServerReflection/ServerReflectionInfo", body))
        assert fields[b"grpc-status"] == b"0"
        reader = MessageReader(1 << 20)
        reader.feed(answer)
        return [response.FromString(each) for _, each in reader.take_messages()]

    return call


def test_services_are_listed(ask):
    """Our services, health and reflection."""
    [answer] = ask(list_services="")
    assert {service.name for service in answer.list_services_response.service} == {
        "a.B",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }


@pytest.mark.parametrize(
    ("symbol", "count"),
    [
        (EXPORT, 4),
        (f"{EXPORT}.Export", 4),
        ("opentelemetry.proto.trace.v1.Span.name", 3),
        ("opentelemetry.proto.trace.v1.Span", 3),
        ("grpc.health.v1.Health", 1),
    ],
)
def test_a_symbol_comes_with_all_that_its_file_imports(ask, symbol, count):
    """The files suffice to build the types, and define the symbol."""
    [answer] = ask(file_containing_symbol=symbol)
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(each)
        for each in answer.file_descriptor_response.file_descriptor_proto
    ]
    assert len(files) == count
    pool = descriptor_pool.DescriptorPool()
    for file in reversed(files):
        pool.Add(file)
    assert symbol.startswith(files[0].package)


def test_one_call_asks_many_things_in_order(ask):
    """By name, extensions (there are none), and unknown symbols."""
    name = "opentelemetry/proto/common/v1/common.proto"
    answers = ask(
        file_by_filename=name,
        all_extension_numbers_of_type="opentelemetry.proto.trace.v1.Span",
        file_containing_symbol="no.such.Thing",
        file_containing_extension={"containing_type": "x", "extension_number": 1},
        host="h",
    )
    assert (
        descriptor_pb2.FileDescriptorProto.FromString(answers[0].file_descriptor_response.file_descriptor_proto[0]).name
        == name
    )
    assert answers[1].all_extension_numbers_response.base_type_name == "opentelemetry.proto.trace.v1.Span"
    assert [answer.error_response.error_code for answer in answers[2:]] == [5, 5, 3]
    assert answers[4].valid_host == "h"
    assert answers[0].original_request.file_by_filename == name


def test_answers_that_nobody_takes_are_bounded(client):
    """For a client that opens no window for them, the call ends and its memory is freed."""
    client.connection.update_settings({http2_peer.Setting.INITIAL_WINDOW_SIZE: 0})
    path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    body = encode_message(b"\x22" + bytes([len(EXPORT)]) + EXPORT.encode()) * 90
    for _ in range(5):
        client.request(path, body, end_stream=False)
    assert client.protocol.session.queued_bytes < 2_000_000
    assert len(client.protocol.streams) < 5


@pytest.mark.parametrize(
    ("body", "code"), [(encode_message(b"\xff"), b"3"), (encode_message(bytes(5000)), b"3"), (b"\0\0\0", b"13")]
)
def test_nonsense(client, body, code):
    """The call ends with an error."""
    fields, _, _ = client.answer(client.request("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", body))
    assert fields[b"grpc-status"] == code
