"""The health service, through the server, as clients call it."""

import pytest

from collector.testing import FakeHost
from collector.transport.grpc.framing import MessageReader, encode_message
from collector.transport.grpc.health import HEALTH_FILE

CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = b"\x08\x01", b"\x08\x02", b"\x08\x03"


def asks(service):
    return encode_message(b"\x0a" + bytes([len(service)]) + service.encode() if service else b"")


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
    """The server as a whole and each service, from whether the process is ready."""
    serving = grpc_server(host=Host())
    client = serving.connect()
    assert messages(client, client.request(CHECK, asks(service))) == [SERVING]
    serving.host.is_ready = False
    assert messages(client, client.request(CHECK, asks(service))) == [NOT_SERVING]


def test_check_of_what_is_not_served(grpc_server):
    """NOT_FOUND, as the protocol says."""
    client = grpc_server(host=Host()).connect()
    fields, body, _ = client.answer(client.request(CHECK, asks("no.Such")))
    assert (fields[b"grpc-status"], body) == (b"5", b"")


@pytest.mark.parametrize("path", [CHECK, WATCH])
@pytest.mark.parametrize("body", [b"", encode_message(b"\xff"), encode_message(b"") * 2, b"\0\0\0"])
def test_nonsense(grpc_server, path, body):
    """INTERNAL, and the connection goes on."""
    client = grpc_server(host=Host()).connect()
    fields, _, _ = client.answer(client.request(path, body))
    assert fields[b"grpc-status"] == b"13"
    assert messages(client, client.request(CHECK, asks(""))) == [SERVING]


def test_malformed_timeout(grpc_server):
    """As for calls of one message."""
    client = grpc_server(host=Host()).connect()
    assert client.answer(client.request(WATCH, asks(""), grpc_timeout="soon"))[0][b"grpc-status"] == b"13"
    assert not client.protocol.streams


def test_watch_tells_each_change_and_ends_with_the_server(grpc_server):
    """Nothing is said twice; an unknown service is watched, too."""
    serving = grpc_server(host=Host())
    client = serving.connect()
    known, unknown = client.request(WATCH, asks("a.B")), client.request(WATCH, asks("no.Such"))
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
    """Nobody is kept, and nothing is polled for nobody."""
    serving = grpc_server(host=Host())
    client = serving.connect()
    client.engine.reset_stream(client.request(WATCH, asks("")))
    client.exchange()
    client.request(WATCH, asks(""))
    client.transport.close()
    serving.loop.run(3)
    assert not serving.server._health._watchers
    assert serving.server._health._timer is None


def test_descriptor_is_the_published_one():
    """Names and numbers of grpc/health/v1/health.proto."""
    [service] = HEALTH_FILE.service
    assert [(method.name, method.server_streaming) for method in service.method] == [("Check", False), ("Watch", True)]
    assert [(value.name, value.number) for value in HEALTH_FILE.message_type[1].enum_type[0].value] == [
        ("UNKNOWN", 0),
        ("SERVING", 1),
        ("NOT_SERVING", 2),
        ("SERVICE_UNKNOWN", 3),
    ]
