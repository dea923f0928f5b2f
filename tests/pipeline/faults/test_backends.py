"""Faults of a backend, by exporter. Afterwards the ledger closes to the item and agrees with the backend's own count.

Each row of ``FAULTS`` is a fault, what becomes of the data that meets it, and the exporters that can meet it. The sample
that always runs has one exporter for each fault.
"""

import asyncio
import itertools
import socket
import ssl
from datetime import UTC, datetime, timedelta

import grpc
import pytest
import trustme
from fault_rig import EXPORTERS, GRPC, FaultRig
from fault_sinks import GrpcSink, HttpSink

from collector.testing import eventually, traces

HTTP = tuple(name for name in EXPORTERS if name not in GRPC)
OTLP = ("otlp_http", "otlp_grpc", "jaeger")
ARRIVES, REFUSED, HALF = "arrives", "refused", "half of it is refused"
FAULTS = [
    ("refused", ARRIVES, EXPORTERS),
    ("hangs", ARRIVES, EXPORTERS),
    ("resets", ARRIVES, EXPORTERS),
    ("garbage", ARRIVES, EXPORTERS),
    ("slow-loris", ARRIVES, EXPORTERS),
    ("dies mid-request", ARRIVES, HTTP),
    ("dies before the answer", ARRIVES, HTTP),
    ("truncated answer", ARRIVES, HTTP),
    ("1xx for ever", ARRIVES, HTTP),
    ("429 Retry-After: 0", ARRIVES, HTTP[:2]),
    ("503", ARRIVES, HTTP),
    ("503 Retry-After: nonsense", ARRIVES, HTTP),
    ("400", REFUSED, HTTP),
    ("partial", HALF, OTLP),
    ("UNAVAILABLE", ARRIVES, tuple(GRPC)),
    ("UNAVAILABLE with RetryInfo", ARRIVES, tuple(GRPC)),
    ("RESOURCE_EXHAUSTED with RetryInfo", ARRIVES, tuple(GRPC)),
    ("INVALID_ARGUMENT", REFUSED, tuple(GRPC)),
    ("certificate expired", ARRIVES, ("otlp_http", "otlp_grpc")),
    ("name not found", ARRIVES, EXPORTERS),
]


def cases():
    """All pairs; all but one of each fault are slow, and the exporters take turns."""
    for number, (fault, outcome, exporters) in enumerate(FAULTS):
        exporters = sorted(exporters)
        for place, exporter in enumerate(exporters):
            marks = [] if place == number % len(exporters) else [pytest.mark.slow]
            yield pytest.param(fault, outcome, exporter, marks=marks, id=f"{exporter}: {fault}")


def sink_of(exporter, fault="", **more):
    return (GrpcSink if exporter in GRPC else HttpSink)(fault, **more)


async def meets_the_fault(rig, sink, outcome):
    """Send while the backend fails, heal it, send again, and compare the books."""
    async with rig.running():
        await rig.send()
        if outcome == ARRIVES:
            await eventually(lambda: sink.hits or sink.fault == "refused", timeout_s=20)
            assert rig.row().held == 50
        else:
            await rig.settled()
        await sink.heal()
        await rig.send()
        await rig.settled()
        row = rig.check_books()
        refused = {ARRIVES: 0, REFUSED: 50, HALF: 25}[outcome]
        assert (row.delivered, sum(row.refused.values()), dict(row.dropped)) == (100 - refused, refused, {})


@pytest.mark.parametrize(("fault", "outcome", "exporter"), list(cases()))
async def test_a_backend_that_fails_and_recovers(fault, outcome, exporter, tmp_path, monkeypatch):
    """What can be sent again arrives exactly once in the books; what the backend refuses for good is counted."""
    if fault == "certificate expired":
        await expired_certificate(exporter, tmp_path)
        return
    async with sink_of(exporter, fault if fault != "name not found" else "") as sink:
        endpoint = ""
        if fault == "name not found":
            sink.fault, endpoint = fault, f"backend.test:{sink.port}"
            real = socket.getaddrinfo

            def resolve(host, *rest, **named):
                if host in {"backend.test", b"backend.test"}:
                    if sink.fault:
                        sink.hits += 1
                        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
                    host = "127.0.0.1"
                return real(host, *rest, **named)

            monkeypatch.setattr(socket, "getaddrinfo", resolve)
        await meets_the_fault(FaultRig(exporter, sink, endpoint=endpoint), sink, outcome)


async def expired_certificate(exporter, folder):
    """The certificate expired an hour ago; then the backend gets a new one."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")

    def credentials(**more):
        certificate = authority.issue_cert("127.0.0.1", **more)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(context)
        if exporter in GRPC:
            chain = b"".join(each.bytes() for each in certificate.cert_chain_pems)
            return context, grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)])
        return context, context

    now = datetime.now(UTC)
    old, _ = credentials(not_before=now - timedelta(days=2), not_after=now - timedelta(hours=1))
    _, new = credentials()
    sink = sink_of(exporter, "certificate expired", tls=new)
    sink.handshake = old

    def handshake_begins(*_):
        sink.hits += 1

    old.sni_callback = handshake_begins
    async with sink:
        rig = FaultRig(exporter, sink, scheme="https", more=f"    tls: {{ca_file: '{folder / 'ca.pem'}'}}\n")
        await meets_the_fault(rig, sink, ARRIVES)


def test_the_table_is_as_long_as_promised():
    """A fault that is taken out of the table is missed."""
    assert len(FAULTS) >= 20
    assert set(EXPORTERS) == set(itertools.chain.from_iterable(exporters for _, _, exporters in FAULTS))


@pytest.mark.parametrize("dead", ["otlp_grpc", pytest.param("otlp_http", marks=pytest.mark.slow)])
async def test_one_exporter_of_three_is_dead(dead):
    """The other two have everything while the dead one still holds it."""
    async with sink_of(dead, "hangs") as bad, HttpSink() as good, HttpSink() as good2:
        others = "".join(
            f"  otlp_http/{name}: {{endpoint: 'http://127.0.0.1:{sink.port}'}}\n"
            for name, sink in (("b", good), ("c", good2))
        )
        rig = FaultRig(dead, bad, others=others)
        async with rig.running():
            await rig.send(20)
            await eventually(lambda: good.taken == good2.taken == 200, timeout_s=20)
            assert rig.row().held == 200
            assert rig.service.ledger.imbalances() == []
            await bad.heal()
            await rig.settled()
            assert rig.check_books().delivered == good.taken == good2.taken == 200


@pytest.mark.parametrize("exporter", ["otlp_http", pytest.param("otlp_grpc", marks=pytest.mark.slow)])
async def test_a_huge_request_and_ten_thousand_tiny_ones(exporter):
    """Neither the size of a request nor the number of them loses anything."""
    async with sink_of(exporter) as sink:
        rig = FaultRig(exporter, sink)
        async with rig.running():
            await rig.send(1, items=20_000)
            await rig.settled()
            tiny = traces(spans=1).wire

            async def client():
                for _ in range(500):
                    await rig.send_wire(tiny, 1)

            await asyncio.gather(*(client() for _ in range(20)))
            await rig.settled()
            assert rig.check_books().delivered == rig.acknowledged >= 20_000
