"""Dead letters are listed, exported, removed and replayed from the directory of a service that does not run."""

import asyncio
import gzip
import json
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import pytest
from click.testing import CliRunner

from collector.api import StoredBatch
from collector.cli import main
from collector.cli._letters import LetterStores, OfflineService, parse_where
from collector.delivery.dead_letters import LetterFilter, dead_letter_queue
from collector.model import Context, Signal, Traces
from collector.registry import Registry
from collector.testing import free_port, traces
from config.load import load

NOW = 1_800_000_000_000_000_000
HOUR = 3_600_000_000_000
SENT = traces(spans=10)


class Server:
    """An OTLP/HTTP server that answers with ``status`` and keeps the bodies that it accepts."""

    def __init__(self):
        self.status = 200
        self.bodies = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = server.status(body) if callable(server.status) else server.status
                if status == 200:
                    server.bodies.append(body)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def path(tmp_path, server):
    """A configuration with two exporters that keep dead letters."""
    file = tmp_path / "config.yaml"
    file.write_text(f"""
receivers: {{otlp: {{protocols: {{grpc: }}}}}}
exporters:
  otlp_http/a: {{endpoint: "{server.url}", compression: none, dead_letter: {{storage: file_storage}}}}
  otlp_http/b: {{endpoint: "{server.url}/b", compression: none, dead_letter: {{storage: file_storage}}}}
  debug:
extensions: {{file_storage: {{directory: "{tmp_path}/storage", create_directory: true}}}}
service:
  extensions: [file_storage]
  pipelines: {{traces: {{receivers: [otlp], exporters: [otlp_http/a, otlp_http/b, debug]}}}}
""")
    return str(file)


def store(path, exporter, reason, *batches, error="HTTP 400"):
    """Put letters into the directory, as an exporter does."""

    async def run():
        service = OfflineService(load((path,), (), Registry()))
        async with LetterStores(service).opened():
            pass
        service.extensions.clear()
        (extension_id, configured), *_ = service.config.extensions.items()
        kind = configured.factory.kind
        async with service.running(kind, extension_id, configured.factory, configured.config, frozenset()) as storage:
            queue = await storage.queue(dead_letter_queue(exporter, Signal.TRACES))
            for batch in batches:
                stored = asyncio.get_running_loop().create_future()
                labels = {"exporter": exporter, "signal": "traces", "reason": reason, "error": error}
                queue.append(batch, stored.set_result, labels)
                assert await stored is None
            await queue.close()

    asyncio.run(run())


def tailrace(*arguments):
    result = CliRunner().invoke(main, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def listed(path, *more):
    """Exporter, reason and items of what is listed."""
    lines = tailrace("dead-letters", "ls", "--config", path, *more).output.splitlines()[1:]
    return [(words[2], words[4], int(words[5])) for words in map(str.split, lines)]


def test_letters_are_listed_by_exporter_oldest_first(path):
    store(path, "otlp_http/b", "http_400", traces(spans=1))
    store(path, "otlp_http/a", "retries_exhausted", traces(spans=2), traces(spans=3))
    assert listed(path) == [
        ("otlp_http/a", "retries_exhausted", 2),
        ("otlp_http/a", "retries_exhausted", 3),
        ("otlp_http/b", "http_400", 1),
    ]
    assert listed(path, "--where", "exporter=otlp_http/b") == [("otlp_http/b", "http_400", 1)]
    assert listed(path, "--where", "before=1h") == []
    assert len(listed(path, "--where", "after=1h")) == 3
    summary = tailrace("dead-letters", "ls", "--summary", "--config", path).output
    assert [line.split()[:5] for line in summary.splitlines()[1:]] == [
        ["otlp_http/a", "traces", "retries_exhausted", "2", "5"],
        ["otlp_http/b", "traces", "http_400", "1", "1"],
    ]


def test_what_is_listed_cannot_control_the_terminal(path):
    store(path, "otlp_http/a", "http_400", traces(spans=1), error="\x1b[31mred\r[bold]x")
    output = tailrace("dead-letters", "ls", "--config", path).output
    assert "[31mred [bold]x" in output
    assert "\x1b[31" not in output


def test_letters_are_exported_as_otlp_json_and_stay(path, tmp_path):
    store(path, "otlp_http/a", "http_400", traces(spans=2), traces(spans=3))
    target = tmp_path / "out.jsonl"
    assert tailrace("dead-letters", "export", "--config", path, "--output", str(target)).exit_code == 0
    assert [list(json.loads(line)) for line in target.read_text().splitlines()] == [["resourceSpans"]] * 2
    assert len(listed(path)) == 2


def test_only_what_was_asked_for_is_removed(path):
    store(path, "otlp_http/a", "http_400", traces(spans=2))
    store(path, "otlp_http/a", "http_413", traces(spans=3))
    result = tailrace("dead-letters", "purge", "--config", path, "--where", "reason=http_400", "--yes")
    assert result.output == "1 batches removed\n"
    assert listed(path) == [("otlp_http/a", "http_413", 3)]


def test_replay_delivers_and_removes(path, server):
    batches = traces(spans=2), traces(spans=3)
    store(path, "otlp_http/a", "http_400", *batches)
    result = tailrace("replay", "--config", path)
    assert (result.exit_code, result.output) == (0, "2 batches with 5 items delivered\n")
    assert server.bodies == [batch.wire for batch in batches]
    assert listed(path) == []


def test_replay_keeps_what_is_refused(path, server):
    """The others are delivered all the same."""
    good, bad = traces(spans=2), traces(spans=1)
    store(path, "otlp_http/a", "http_400", bad, good)
    server.status = lambda body: 400 if body == bad.wire else 200
    result = tailrace("replay", "--config", path)
    assert result.exit_code == 1
    assert "1 batches with 2 items delivered\n1 batches refused: POST " in result.output
    assert listed(path) == [("otlp_http/a", "http_400", 1)]


@pytest.mark.parametrize("options", [("--keep",), ("--limit", "0", "--keep")])
def test_replay_can_leave_everything_in_place(path, server, options):
    store(path, "otlp_http/a", "http_400", traces(spans=2))
    assert tailrace("replay", "--config", path, *options).exit_code == 0
    assert len(server.bodies) == len(listed(path)) == 1


def test_replay_to_another_endpoint(path):
    other, first = Server(), traces(spans=2)
    store(path, "otlp_http/a", "http_400", first, traces(spans=3))
    result = tailrace("replay", "--config", path, "--to", other.url, "--limit", "1")
    other.close()
    assert result.output == "1 batches with 2 items delivered\n"
    assert [gzip.decompress(body) for body in other.bodies] == [first.wire]
    assert listed(path) == [("otlp_http/a", "http_400", 3)]


def test_replay_to_another_exporter(path):
    store(path, "otlp_http/a", "http_400", traces(spans=2))
    assert "1 batches with 2 items delivered" in tailrace("replay", "--config", path, "--to", "debug").output
    assert listed(path) == []


def test_replay_to_nobody(path):
    store(path, "otlp_http/a", "http_400", traces(spans=2))
    result = tailrace("replay", "--config", path, "--to", "nobody")
    assert result.exit_code == 1
    assert "'nobody' is neither an exporter of the configuration (otlp_http/a, otlp_http/b, debug)" in result.output
    assert len(listed(path)) == 1


def test_wrong_conditions_are_explained(path):
    for condition, message in (
        ("colour=red", "expected KEY=VALUE with one of the keys exporter, signal, reason, after, before"),
        ("after=yesterday", "'yesterday' is not a valid time"),
    ):
        result = tailrace("dead-letters", "ls", "--config", path, "--where", condition)
        assert result.exit_code == 2
        assert message.split()[0] in result.output


def test_conditions():
    """All of them have to hold; several values of one key are alternatives."""

    def stored(hours_ago, reason="http_400"):
        labels = {"exporter": "a", "signal": "traces", "reason": reason}
        return StoredBatch(0, 1, 1, Context(), stored_unix_nano=NOW - hours_ago * HOUR, labels=labels)

    where = parse_where(["reason=http_400,http_413", "after=3h", "before=1h", "signal=traces"], NOW)
    assert [where.matches(stored(hours)) for hours in (0, 1, 2, 3, 4)] == [False, False, True, True, False]
    assert where.matches(stored(2, "http_413"))
    assert not where.matches(stored(2, "queue_full"))
    assert LetterFilter().matches(stored(100_000))
    assert parse_where(["after=2027-01-15T08:00:00Z"], NOW).after_unix_nano == NOW
    assert parse_where(["after=2027-01-15T09:00:00+01:00"], NOW).after_unix_nano == NOW
    for each in (where, LetterFilter(), LetterFilter(exporter=frozenset({"a/b", "c"}))):
        assert LetterFilter.from_query(each.to_query()) == each


@pytest.fixture
def running(path, server, tmp_path):
    """The service in a process of its own, with one dead letter of ten spans; the server accepts data by now."""
    server.status = 400
    port, admin = free_port(), free_port()
    options = (
        f"receivers.otlp.protocols.grpc.endpoint=127.0.0.1:{port}",
        f"service.telemetry.metrics.address=127.0.0.1:{admin}",
    )
    settings = [part for option in options for part in ("--set", option)]
    program = [sys.executable, "-c", "from collector.cli import main; main()", "--config", path, *settings]
    with subprocess.Popen(program, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: answers(f"http://127.0.0.1:{admin}/health/ready"))
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                method = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
                channel.unary_unary(method)(SENT.wire, wait_for_ready=True)
            wait_until(lambda: len(listed(path, *settings)) == 2)
            server.status = 200
            yield settings
        finally:
            process.terminate()


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def wait_until(condition, timeout_s=30.0):
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it takes too long"
        time.sleep(0.05)


def test_a_running_service_lists_and_replays_by_itself(path, server, running):
    """Its directory cannot be opened meanwhile, so the commands use its admin port."""
    assert {(exporter, items) for exporter, _, items in listed(path, *running)} == {
        ("otlp_http/a", 10),
        ("otlp_http/b", 10),
    }
    refused = tailrace("replay", "--config", path, *running, "--to", "debug")
    assert refused.exit_code == 1
    assert "stop the service to use --to" in refused.output
    assert tailrace("dead-letters", "purge", "--config", path, *running, "--yes").exit_code == 1
    result = tailrace("replay", "--config", path, *running, "--where", "exporter=otlp_http/a")
    assert (result.exit_code, result.output) == (0, "1 batches with 10 items delivered\n")
    (body,) = server.bodies
    assert sorted(Traces.from_wire(body).field("span_id").tolist()) == sorted(SENT.field("span_id").tolist())
    assert [exporter for exporter, _, _ in listed(path, *running)] == ["otlp_http/b"]
