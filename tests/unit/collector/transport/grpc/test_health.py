"""The health service, through the server, as clients call it."""

import pytest
from google.protobuf import descriptor_pool, message_factory

from collector.testing import FakeHost
from collector.transport.grpc.framing import MessageReader, encode_message
from collector.transport.grpc.health import HEALTH_FILE

CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = b"\x08\x01", b"\x08\x02", b"\x08\x03"


def check_request(service):
    """Return a framed HealthCheckRequest."""
    return encode_message(_message_class("HealthCheckRequest")(service=service).SerializeToString())


def _message_class(name):
    pool = descriptor_pool.DescriptorPool()
    pool.Add(HEALTH_FILE)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"grpc.health.v1.{name}"))


def messages(client, stream_id):
    reader = MessageReader(1000)
    reader.feed(client.answer(stream_id)[1])
    return [message for _, message in reader.take_messages()]


class Host(FakeHost):
    is_ready = True

    def ready(self):
        return self.is_ready


@pytest.mark.parametrize("service", ["", "a.B", "grpc.health.v1.Health"])
def test_check(grpc_server, service):
    """The status of the server as a whole and of each service is whether the process is ready."""
    serving = grpc_server(host=Host())
    client = serving.connect()
    assert messages(client, client.request(CHECK, check_request(service))) == [SERVING]
    serving.host.is_ready = False
    assert messages(client, client.request(CHECK, check_request(service))) == [NOT_SERVING]


def test_check_of_what_is_not_served(grpc_server):
    """NOT_FOUND, as the protocol specifies."""
    client = grpc_server(host=Host()).connect()
    fields, body, _ = client.answer(client.request(CHECK, check_request("no.Such")))
    assert (fields[b"grpc-status"], body) == (b"5", b"")


@pytest.mark.parametrize("path", [CHECK, WATCH])
@pytest.mark.parametrize("body", [b"", encode_message(b"\xff"), encode_message(b"") * 2, b"\0\0\0"])
def test_nonsense(grpc_server, path, body):
    """INTERNAL, and the connection continues."""
    client = grpc_server(host=Host()).connect()
    fields, _, _ = client.answer(client.request(path, body))
    assert fields[b"grpc-status"] == b"13"
    assert messages(client, client.request(CHECK, check_request(""))) == [SERVING]


def test_malformed_timeout(grpc_server):
    """It is refused as for calls with one message."""
    client = grpc_server(host=Host()).connect()
    assert client.answer(client.request(WATCH, check_request(""), grpc_timeout="soon"))[0][b"grpc-status"] == b"13"
    assert not client.protocol.streams


def test_watch_tells_each_change_and_ends_with_the_server(grpc_server):
    """A status is sent only when it changes; unknown services can be watched as well."""
    serving = grpc_server(host=Host())
    client = serving.connect()
    known, unknown = client.request(WATCH, check_request("a.B")), client.request(WATCH, check_request("no.Such"))
    serving.loop.run(5)
    client.exchange()
    assert (messages(client, known), messages(client, unknown)) == ([SERVING], [SERVICE_UNKNOWN])
    serving.host.is_ready = False
    serving.loop.run(2)
    client.exchange()
    serving.host.is_ready = True
    serving.loop.run(2)
    client.exchange()
    assert messages(client, known) == [SERVING, NOT_SERVING, SERVING]
    serving.server._health.close()
    client.exchange()
    assert messages(client, known) == [SERVING, NOT_SERVING, SERVING, NOT_SERVING]
    assert client.answer(known)[0][b"grpc-status"] == b"0"
    assert not client.protocol.streams


def test_watch_of_a_client_that_goes(grpc_server):
    """No watcher is kept, and there is no polling without watchers."""
    serving = grpc_server(host=Host())
    client = serving.connect()
    client.connection.reset_stream(client.request(WATCH, check_request("")))
    client.exchange()
    client.request(WATCH, check_request(""))
    client.transport.close()
    serving.loop.run(3)
    assert not serving.server._health._watchers
    assert serving.server._health._timer is None


def test_descriptor_is_the_published_one():
    """The names and numbers of grpc/health/v1/health.proto."""
    [service] = HEALTH_FILE.service
    assert [(method.name, method.server_streaming) for method in service.method] == [("Check", False), ("Watch", True)]
    assert [(value.name, value.number) for value in HEALTH_FILE.message_type[1].enum_type[0].value] == [
        ("UNKNOWN", 0),
        ("SERVING", 1),
        ("NOT_SERVING", 2),
        ("SERVICE_UNKNOWN", 3),
    ]
