"""tcp_log, udp_log and syslog take entries from real sockets."""

import ssl

import pytest
import trustme
import uvloop
from log_input_rig import ADDRESS, Running

from collector.api import RetryableError
from collector.model import Signal
from collector.testing import Sink, eventually
from receivers.syslog import factory as syslog
from receivers.tcp_log import factory as tcp_log
from receivers.udp_log import factory as udp_log


async def test_tcp_lines_become_records():
    """Each line is a record; what is left when the client disconnects is one, too."""
    async with Running(tcp_log, {"listen_address": ADDRESS}) as running:
        writer = await running.send(b"one\r\n two \nthr", b"ee\nlast")
        await eventually(lambda: running.sink.item_count == 3)
        assert running.bodies() == ["one", "two", "three"]
        writer.close()
        await eventually(lambda: running.sink.item_count == 4)
        assert running.bodies()[-1] == "last"


async def test_tcp_passes_operators_and_resource():
    """Operators, attributes and resource of the configuration are applied."""
    config = {
        "listen_address": ADDRESS,
        "operators": [
            {"type": "json_parser", "severity": {"parse_from": "attributes.level"}},
            {"type": "filter", "expr": 'attributes.level == "debug"'},
        ],
        "attributes": {"input": "tcp"},
        "resource": {"service.name": "shop"},
    }
    async with Running(tcp_log, config) as running:
        writer = await running.send(b'{"level":"warn"}\n{"level":"debug"}\nplain\n')
        await eventually(lambda: running.sink.item_count == 2)
        writer.close()
        (batch,) = running.sink.batches
        assert batch.field("severity_number").tolist() == [13, 0]
        assert batch.attribute("service.name", inherit=True).text.to_list() == ["shop", "shop"]
        assert batch.attribute("input").text.to_list() == ["tcp", "tcp"]
        assert running.telemetry.value("tailrace_log_operator_dropped", reason="filtered") == 1
        assert (
            running.telemetry.value("tailrace_log_operator_failures", reason="the text is not of the expected form")
            == 1
        )


async def test_tcp_multiline_and_encoding():
    """Entries are found by patterns, in other encodings as well."""
    config = {"listen_address": ADDRESS, "encoding": "utf-16le", "multiline": {"line_start_pattern": "^START"}}
    async with Running(tcp_log, config) as running:
        writer = await running.send("START é\n more\nSTART b\n".encode("utf-16-le"))
        writer.close()
        await eventually(lambda: running.sink.item_count == 2)
        assert running.bodies() == ["START é\n more", "START b"]


async def test_tcp_cuts_long_lines():
    """A line that is longer than max_log_size becomes several records; nothing is lost."""
    async with Running(tcp_log, {"listen_address": ADDRESS, "max_log_size": "64KiB"}) as running:
        writer = await running.send(b"x" * 150_000 + b"\nend\n")
        await eventually(lambda: "end" in running.bodies())
        writer.close()
        assert "".join(running.bodies()) == "x" * 150_000 + "end"
        assert max(map(len, running.bodies())) <= 64 * 1024


async def test_tcp_one_log_per_packet():
    """Everything that a connection sends is one record."""
    async with Running(tcp_log, {"listen_address": ADDRESS, "one_log_per_packet": True}) as running:
        writer = await running.send(b"a\nb\n", b"c")
        writer.close()
        await eventually(lambda: running.sink.item_count == 1)
        assert running.bodies() == ["a\nb\nc"]


async def test_tcp_add_attributes():
    """Both ends of the connection are named."""
    async with Running(tcp_log, {"listen_address": ADDRESS, "add_attributes": True}) as running:
        writer = await running.send(b"x\n")
        await eventually(lambda: running.sink.item_count == 1)
        assert running.attribute("net.transport") == ["IP.TCP"]
        assert running.attribute("net.peer.ip") == ["127.0.0.1"]
        assert running.attribute("net.peer.port") == [str(writer.get_extra_info("sockname")[1])]
        assert running.attribute("net.host.port") == [str(running.port)]
        assert all(running.attribute("net.peer.name"))
        writer.close()


async def test_tcp_over_tls(tmp_path):
    """With tls, clients connect over TLS."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    tls = {"cert_file": str(tmp_path / "cert.pem"), "key_file": str(tmp_path / "key.pem")}
    async with Running(tcp_log, {"listen_address": ADDRESS, "tls": tls}) as running:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        writer = await running.send(b"secret\n", tls=context)
        await eventually(lambda: running.bodies() == ["secret"])
        writer.close()


async def test_tcp_waits_while_the_pipeline_refuses():
    """Entries that are refused for a time are passed on later, and none is lost."""
    sink = Sink(Signal.LOGS, fail_with=RetryableError("full", reason="queue_full"))
    async with Running(tcp_log, {"listen_address": ADDRESS}, sink) as running:
        writer = await running.send(b"one\n")
        await eventually(lambda: running.receiver._input._waiting_bytes == 0)
        writer.write(b"two\n")
        sink.fail_with = None
        await eventually(lambda: running.bodies() == ["one", "two"])
        writer.close()


async def test_tcp_passes_on_what_has_arrived_at_a_shutdown():
    """What a client has sent, and what recombine holds, is passed on before the end."""
    config = {
        "listen_address": ADDRESS,
        "operators": [{"type": "recombine", "combine_field": "body", "is_first_entry": 'body startsWith "A"'}],
    }
    running = Running(tcp_log, config)
    async with running:
        await running.send(b"A\n b\n c\nA2\nincomplete")
        await eventually(lambda: running.receiver._input._connections)
        await eventually(lambda: running.sink.item_count >= 1)
    assert running.bodies() == ["A\nb\nc", "A2\nincomplete"]


@pytest.mark.parametrize("tls", [False, True])
def test_tcp_on_the_loop_of_the_service(tls, tmp_path):
    """The same works on uvloop, with pauses of reading, with and without TLS."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    block = {"tls": {"cert_file": str(tmp_path / "cert.pem"), "key_file": str(tmp_path / "key.pem")}} if tls else {}

    async def scenario():
        async with Running(tcp_log, {"listen_address": ADDRESS, **block}) as running:
            writer = await running.send(
                *[b"%0100d\n" % number * 100 for number in range(400)], tls=context if tls else None
            )
            await eventually(lambda: running.sink.item_count == 40_000, timeout_s=30)
            writer.close()
            assert running.bodies()[::100] == [f"{number:0100d}" for number in range(400)]

    uvloop.run(scenario())


async def test_udp_datagrams_become_records():
    """Each datagram is a record without the control characters at its end."""
    async with Running(udp_log, {"listen_address": ADDRESS}) as running:
        running.send_datagrams(b"one\n", b"two\nlines\x00", b"\n")
        await eventually(lambda: running.sink.item_count == 2)
        assert running.bodies() == ["one", "two\nlines"]


async def test_udp_multiline_and_attributes():
    """A datagram may have several entries, and peers are named."""
    config = {
        "listen_address": ADDRESS,
        "multiline": {"line_end_pattern": ";", "omit_pattern": True},
        "async": {"max_queue_length": 5},
        "add_attributes": True,
    }
    async with Running(udp_log, config) as running:
        _, port = running.send_datagrams(*[b"a;b"] * 20)
        await eventually(lambda: running.sink.item_count == 40)
        assert running.bodies() == ["a", "b"] * 20
        assert set(running.attribute("net.peer.port")) == {str(port)}
        assert set(running.attribute("net.transport")) == {"IP.UDP"}


async def test_syslog_octet_counting():
    """Messages with their length in front may have line breaks; what begins otherwise is taken up to the next one."""
    messages = [b"<34>1 2003-10-11T22:14:15.003Z host su - ID47 - one\ntwo", b"<13>1 2003-10-11T22:14:15Z h a - - - x"]
    framed = b"".join(b"%d %s" % (len(message), message) for message in messages)
    config = {"protocol": "rfc5424", "enable_octet_counting": True, "tcp": {"listen_address": ADDRESS}}
    async with Running(syslog, config) as running:
        writer = await running.send(framed[:20], framed[20:] + b"<13>1 no length\n" + framed)
        await eventually(lambda: running.sink.item_count == 5)
        writer.close()
        assert running.attribute("message") == ["one\ntwo", "x", None, "one\ntwo", "x"]
        assert running.bodies()[2] == "<13>1 no length"


async def test_syslog_closes_a_connection_with_a_message_that_is_too_long():
    """A message that is longer than max_octets ends the connection, which is counted."""
    config = {
        "protocol": "rfc5424",
        "enable_octet_counting": True,
        "max_octets": 100,
        "tcp": {"listen_address": ADDRESS},
    }
    async with Running(syslog, config) as running:
        await running.send(b"99999 <34>1 x")
        await eventually(
            lambda: running.telemetry.value("tailrace_receiver_connections_closed", reason="too_large") == 1
        )


async def test_syslog_over_udp():
    """RFC 3164 over UDP: severity, time and fields."""
    config = {"protocol": "rfc3164", "udp": {"listen_address": ADDRESS}, "on_error": "drop"}
    async with Running(syslog, config) as running:
        running.send_datagrams(
            b"<34>Oct 11 22:14:15 mymachine su[7]: failed", b"not syslog", b"<13>Feb  5 17:32:18 h t: x"
        )
        await eventually(lambda: running.sink.item_count == 2)
        (batch,) = running.sink.batches
        assert batch.field("severity_number").tolist() == [18, 10]
        assert running.attribute("proc_id") == ["7", None]
        assert running.attribute("facility_text") == ["auth", "user"]
        assert (batch.field("time_unix_nano") > 0).all()
        assert running.telemetry.value("tailrace_log_operator_dropped", reason="error") == 1


@pytest.mark.parametrize(
    ("factory", "config", "message"),
    [
        (tcp_log, {}, "listen_address"),
        (tcp_log, {"listen_address": "x"}, "listen_address"),
        (tcp_log, {"listen_address": ADDRESS, "max_log_size": 1000}, "max_log_size"),
        (tcp_log, {"listen_address": ADDRESS, "encoding": "klingon"}, "known encoding"),
        (tcp_log, {"listen_address": ADDRESS, "multiline": {"line_start_pattern": "("}}, "line_start_pattern"),
        (tcp_log, {"listen_address": ADDRESS, "operators": [{"type": "json_parsr"}]}, "json_parser"),
        (syslog, {"protocol": "rfc5424"}, "either tcp or udp"),
        (syslog, {"protocol": "x", "tcp": {"listen_address": ADDRESS}}, "protocol"),
        (
            syslog,
            {"protocol": "rfc5424", "enable_octet_counting": True, "udp": {"listen_address": ADDRESS}},
            "enable_octet_counting",
        ),
    ],
)
def test_mistakes_are_refused(factory, config, message):
    """What cannot work is refused with the key."""
    with pytest.raises(ValueError, match=message):
        factory.config_type.model_validate(config)
