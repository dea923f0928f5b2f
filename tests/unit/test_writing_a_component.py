"""The guide for component authors is true: excerpts equal the example plug-in, all other Python blocks run."""

import asyncio
import json
import pkgutil
import re
import textwrap
from pathlib import Path

import pytest

from collector.api import PermanentError
from collector.model import Signal
from collector.testing import (
    FakeClock,
    FakeHost,
    RecordingTelemetry,
    Sink,
    eventually,
    hand_over,
    logs,
    make,
    make_settings,
)
from collector.transport.auth import AuthenticationError, Authenticator
from config.yaml import parse

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "writing-a-component.md"
TEXT = GUIDE.read_text(encoding="utf-8")
BLOCK = re.compile(
    r"(?:^<!-- from (?P<source>\S+) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
BLOCKS = [match.groupdict() for match in BLOCK.finditer(TEXT)]
EXCERPTS = [block for block in BLOCKS if block["source"]]


def test_every_block_is_found():
    """No fence is missed because of how it is written."""
    assert TEXT.count("\n```") == 2 * len(BLOCKS)
    assert {block["language"] for block in BLOCKS} == {"python", "toml", "yaml"}
    assert TEXT.count("<!-- from") == len(EXCERPTS) > 5


@pytest.mark.parametrize("block", EXCERPTS, ids=lambda block: f"{Path(block['source']).name}-{len(block['code'])}")
def test_excerpts_are_verbatim(block):
    """What the guide quotes is what the example has, apart from indentation and the blank lines that ruff adds."""
    source, code = (
        re.sub(r"\n{3,}", "\n\n", text)
        for text in ((ROOT / block["source"]).read_text(encoding="utf-8"), block["code"])
    )
    assert any(textwrap.indent(code, " " * depth) in source for depth in (0, 4, 8))


@pytest.fixture(scope="module")
def guide():
    """The names that the other Python blocks define, run one after the other, as a reader would enter them."""
    namespace = {"__name__": "guide"}
    for block in BLOCKS:
        if block["language"] == "python" and not block["source"]:
            code = "\n" * TEXT[: TEXT.index(block["code"])].count("\n") + block["code"]
            exec(compile(code, str(GUIDE), "exec"), namespace)
    return namespace


async def test_the_tests_of_the_guide_pass(guide):
    """The guide shows tests of two of its components."""
    tests = [value for name, value in guide.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        await test()


def test_the_first_processor(guide):
    """It drops what is below the configured severity."""
    batch = logs(records=50)
    processor = make(guide["factory"], guide["DropQuietConfig"](min_severity=13), signals={Signal.LOGS})
    assert processor.transform(batch).item_count == (batch.field("severity_number") >= 13).sum() > 0


async def test_the_stage_hands_over_what_it_holds(guide):
    """Batches that arrive after hand_over are handed over too, and are emitted by the successor alone."""
    sink, config = Sink(Signal.LOGS), guide["HoldConfig"]()
    settings = make_settings(signals={Signal.LOGS}, outputs={Signal.LOGS: sink}, clock=FakeClock())
    first, second = guide["Hold"](settings, config), guide["Hold"](settings, config)
    await first.start(FakeHost())
    await first.consume(logs(records=1))
    hand_over(first, second, config)
    assert first.try_consume(logs(records=2))
    await first.shutdown()
    assert sink.item_count == 0
    await second.start(FakeHost())
    assert second.held_items() == 3
    await second.shutdown()
    assert sink.item_count == 3


async def test_the_counters_survive_a_restart(guide):
    """With a storage; without one they begin at zero."""
    host = guide["host"]
    for storage, expected in (("file_storage", [0, 3, 6]), ("", [0, 0])):
        found = []
        for _ in expected:
            counters = guide["Counters"](make_settings(), guide["CountersConfig"](storage=storage))
            await counters.start(host)
            found.append(counters.count)
            counters.count += 3
            await counters.checkpoint()
            await counters.shutdown()
        assert found == expected


async def test_the_plain_exporter_maps_errors(guide):
    """A message that is too large is a permanent error; others are published as they are."""

    published = []

    class Producer:
        async def publish(self, topic, message):
            if len(message) > 10_000:
                raise guide["MessageTooLargeError"]
            published.append((topic, message))

    exporter, batch = guide["BrokerExporter"](Producer()), logs(records=2)
    await exporter.consume(batch)
    assert published == [("otlp.logs", batch.wire)]
    with pytest.raises(PermanentError, match="the broker refused"):
        await exporter.consume(logs(records=500))


async def test_the_webhook_exporter_posts_json(guide):
    """It posts OTLP/JSON within its limit of items; what the server does not accept is refused."""
    bodies, responses = [], ["200 OK", "200 OK", "400 Bad Request"]

    async def respond(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
        bodies.append(await reader.readexactly(length))
        writer.write(f"HTTP/1.1 {responses.pop(0)}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    config = guide["WebhookConfig"](endpoint=f"http://127.0.0.1:{port}/hook", compression="none")
    telemetry = RecordingTelemetry()
    exporter = guide["WebhookExporter"](make_settings(signals={Signal.LOGS}, telemetry=telemetry), config)
    await exporter.start(FakeHost())
    for records in (1_500, 10):
        await exporter.consume(logs(records=records))
        await eventually(lambda: not exporter.in_flight_items()[Signal.LOGS])
    await exporter.shutdown()
    server.close()
    assert [list(json.loads(body)) for body in bodies] == [["resourceLogs"]] * 3
    assert telemetry.ledger.delivered[Signal.LOGS] == 1_500
    assert telemetry.ledger.refused == {(Signal.LOGS, "http_400"): 10}


async def test_close_copes_with_a_failed_open(guide):
    """A certificate that cannot be read refuses the start, and the service then shuts the exporter down."""
    config = guide["WebhookConfig"](endpoint="https://localhost", tls={"ca_file": "/nowhere"})
    exporter = guide["WebhookExporter"](make_settings(signals={Signal.LOGS}), config)
    with pytest.raises(ValueError, match="ca_file"):
        await exporter.start(FakeHost())
    await exporter.shutdown()


async def test_the_authenticator_knows_its_tenants(guide):
    """The right key gives the tenant's claim; others are refused."""
    extension = guide["ApiKeys"](make_settings(), guide["ApiKeysConfig"](tenants={"a": "key-a", "b": "key-b"}))
    assert isinstance(extension, Authenticator)
    assert await extension.authenticate({"x-api-key": ["key-b"]}) == (("tenant", "b"),)
    for headers in ({}, {"x-api-key": ["key-c"]}):
        with pytest.raises(AuthenticationError):
            await extension.authenticate(headers)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block["language"] == "yaml"])
def test_yaml_blocks_can_be_read(block):
    """The YAML of the guide is YAML."""
    assert parse(block["code"], str(GUIDE))


def test_links_lead_somewhere():
    """Files exist, and anchors are headings of the guide."""
    anchors = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        path, _, anchor = target.partition("#")
        assert (GUIDE.parent / path).exists()
        assert not anchor or anchor in anchors, anchor


def test_names_in_the_text_exist():
    """Every dotted name of ours that the guide mentions can be imported."""
    names = set(re.findall(r"`(collector(?:\.\w+)+)", TEXT))
    assert len(names) > 5
    for name in names:
        assert pkgutil.resolve_name(name)
