"""h2spec, the conformance tests of HTTP/2, against the gateway's gRPC port."""

import re
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from collector.testing import free_port

CONFIG = """
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:GRPC"ENGINE}}}}
exporters: {nop: {}}
service:
  telemetry: {logs: {level: error}, metrics: {address: "127.0.0.1:{admin}"}}
  pipelines: {traces: {receivers: [otlp], exporters: [nop]}}
"""
KNOWN = Path(__file__).parent.parent / "data" / "h2spec_known.txt"
CASES_AT_LEAST = 140

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]


def known_failures():
    """Return the reason by case, for cases that always fail and for those that may fail."""
    always, sometimes = {}, {}
    for line in KNOWN.read_text().splitlines():
        if line and not line.startswith("#"):
            case, _, reason = map(str.strip, line.partition("|"))
            (sometimes if case.startswith("~") else always)[case.removeprefix("~").strip()] = reason
    return always, sometimes


def outcomes(report):
    """Return the failure by case; empty if it passed, None if it does not apply."""
    found = {}
    text = re.sub(r"[^\t\n\r -\ufffd]", "?", report.read_text(errors="replace"))  # it writes received bytes unescaped
    for case in ET.fromstring(text).iter("testcase"):
        wrong = next((case.find(name) for name in ("failure", "error") if case.find(name) is not None), None)
        said = None if case.find("skipped") is not None else "" if wrong is None else wrong.text or "failed"
        found[f"{case.get('package')}: {case.get('classname')}"] = said
    return found


def test_every_known_failure_has_a_reason():
    """No case is listed without a reason, or twice."""
    always, sometimes = known_failures()
    assert all((always | sometimes).values())
    assert not always.keys() & sometimes.keys()


def run(h2spec, port, report):
    """Run the program once and return the outcome of each case."""
    arguments = [h2spec, "--host", "127.0.0.1", "--port", str(port), "--strict", "--timeout", "2", "--junit-report", str(report),
                 "--path", "/opentelemetry.proto.collector.trace.v1.TraceService/Export"]  # fmt: skip
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert report.exists(), done.stdout[-2000:] + done.stderr[-2000:]
    return outcomes(report)


def test_the_gateway_speaks_http2(http2, gateway, server, tmp_path):
    """Every case passes except those of the committed list, and the list has no other entries.

    Afterwards the gateway continues to serve and shuts down in good order.

    h2spec only looks at what arrives within moments, so on a busy machine a case now and then differs.
    A difference from the list must therefore occur in three runs.
    """
    port = free_port()
    running = gateway(CONFIG.replace(":GRPC", f":{port}").replace("ENGINE", http2.server))
    always, sometimes = (cases.keys() for cases in known_failures())
    new, gone, found = None, None, {}
    for attempt in range(3):
        found = run(server.binary("h2spec"), port, tmp_path / f"h2spec-{attempt}.xml")
        assert len(found) >= CASES_AT_LEAST
        failed = {case for case, wrong in found.items() if wrong}
        new = failed - always - sometimes if new is None else new & failed
        gone = always - failed if gone is None else gone - failed
        if not new and not gone:
            break
    assert not new, "\n".join(f"{case}\n  {found[case]}" for case in sorted(new))
    assert not gone, f"these pass now: take them from {KNOWN.name}: {sorted(gone)}"
    assert sometimes <= found.keys(), f"h2spec has no such cases: {sorted(sometimes - found.keys())}"
    assert running.ready()
    assert running.stop() == 0
