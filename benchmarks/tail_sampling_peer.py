"""The same traces through Tailrace's ``tail_sampling`` and the Go collector's, policy by policy.

Which traces does each keep?

``python benchmarks/tail_sampling_peer.py [--traces N] [--seed N]`` prints a table and ends with 1 if an answer differs
that should not. With ``--cpu`` it prints the CPU seconds per million spans of both instead, for the configuration of
``COST``. Needs the Go collector (``make backends``). Loopback only.

Every policy is a pipeline of its own behind one receiver, in both. The traces are made by a seed; each comes in several
requests and under several resources. Decisions fall at shutdown, so that nothing depends on time. What depends on the
order of decisions (limits), which the Collector takes from a Go map, is chosen so that order cannot matter, or only the
number of traces is compared.
"""

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

import grpc
import psutil
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from rich.console import Console
from rich.table import Table

from collector.testing import free_port

METHOD: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
ROOT: Final = Path(__file__).parents[1]
CACHE: Final = Path(
    os.environ.get("TAILRACE_BACKENDS")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tailrace-backends"
)
MS: Final = 1_000_000
NOW: Final = 1_700_000_000_000_000_000


@dataclasses.dataclass(frozen=True)
class Case:
    """One configuration of the processor."""

    name: str
    policies: list[dict[str, Any]]
    keys: dict[str, Any] = dataclasses.field(default_factory=dict)
    by_count: bool = False
    """Which traces is a matter of order: only how many is compared."""
    differs: str = ""
    """Why the Collector keeps more: traces for which ``excess`` holds. docs/tail_sampling.md says more."""
    excess: Any = None


def policy(kind: str, name: str = "", **content: Any) -> dict[str, Any]:
    return {"name": name or kind, "type": kind, **({kind: content} if content else {})}


def both(*inner: dict[str, Any], kind: str = "and") -> dict[str, Any]:
    return policy(kind, **{f"{kind}_sub_policy": list(inner)})


def opposite(inner: dict[str, Any]) -> dict[str, Any]:
    return policy("not", not_sub_policy=inner)


ERROR: Final = policy("status_code", status_codes=["ERROR"])
SLOW: Final = policy("latency", threshold_ms=1000)
CHECKOUT: Final = policy("string_attribute", "checkout", key="service.name", values=["checkout"])
NOISE: Final = policy("boolean_attribute", "noise", key="noise", value=True)
THREE: Final = policy("span_count", min_spans=3, max_spans=3)
TENTH: Final = policy("probabilistic", sampling_percentage=10)
BAND: Final = (300, 1000)


def one_sized(size: int) -> list[dict[str, Any]]:
    """A limit that exactly one trace, marked so, may pass or not."""
    marked = policy("string_attribute", key="marked", values=["yes"])
    return [both(marked, policy("bytes_limiting", bytes_per_second=1, burst_capacity=size))]


def cases(marked_bytes: int) -> list[Case]:
    text, number, flag = "string_attribute", "numeric_attribute", "boolean_attribute"
    ottl, composite = "ottl_condition", "composite"
    shares = [{"policy": "few", "percent": 1}, {"policy": "rest", "percent": 99}]
    order = ["few", "rest"]
    few = {**both(ERROR, policy("span_count", min_spans=3)), "name": "few"}
    rest = {**policy("always_sample"), "name": "rest"}
    return [
        Case("always_sample", [policy("always_sample")]),
        Case("latency", [SLOW]),
        Case("latency, 0", [policy("latency", threshold_ms=0)]),
        Case(
            "latency, band",
            [policy("latency", threshold_ms=BAND[0], upper_threshold_ms=BAND[1])],
            differs="the Collector also keeps traces that were in the band before their last span",
            excess=lambda lasted_ms: lasted_ms > BAND[1],
        ),
        Case(
            "latency, upper only",
            [policy("latency", threshold_ms=0, upper_threshold_ms=200)],
            differs="as above",
            excess=lambda lasted_ms: lasted_ms > 200,
        ),
        Case("numeric_attribute", [policy(number, key="http.response.status_code", min_value=400, max_value=499)]),
        Case("numeric_attribute, min", [policy(number, key="http.response.status_code", min_value=404)]),
        Case("numeric_attribute, max", [policy(number, key="http.response.status_code", max_value=200)]),
        Case("numeric_attribute, 0 in range", [policy(number, key="mixed", min_value=-1, max_value=1)]),
        Case("numeric_attribute, resource", [policy(number, key="replica", min_value=2, max_value=2)]),
        Case(
            "numeric_attribute, invert",
            [policy(number, key="http.response.status_code", min_value=500, max_value=599, invert_match=True)],
        ),
        Case("probabilistic, 10 %", [TENTH]),
        Case("probabilistic, 33.3 %, salt", [policy("probabilistic", sampling_percentage=33.3, hash_salt="a-salt")]),
        Case("probabilistic, 0 %", [policy("probabilistic", sampling_percentage=0)]),
        Case("probabilistic, 100 %", [policy("probabilistic", sampling_percentage=100)]),
        Case("status_code, ERROR", [ERROR]),
        Case("status_code, OK and UNSET", [policy("status_code", status_codes=["OK", "UNSET"])]),
        Case("string_attribute", [policy(text, key="http.route", values=["/pay", "/cart"])]),
        Case("string_attribute, resource", [CHECKOUT]),
        Case(
            "string_attribute, regex",
            [policy(text, key="http.route", values=["^/v1/.+", "art$"], enabled_regex_matching=True, cache_max_size=2)],
        ),
        Case(
            "string_attribute, regex, any kind", [policy(text, key="mixed", values=["^$"], enabled_regex_matching=True)]
        ),
        Case(
            "string_attribute, regex on resource",
            [policy(text, key="replica", values=["^$"], enabled_regex_matching=True)],
        ),
        Case("string_attribute, invert", [policy(text, key="http.route", values=["/pay"], invert_match=True)]),
        Case(
            "string_attribute, regex, invert",
            [policy(text, key="service.name", values=["^c"], enabled_regex_matching=True, invert_match=True)],
        ),
        Case("trace_state", [policy("trace_state", key="tier", values=["gold", "silver"])]),
        Case("trace_flags", [policy("trace_flags")]),
        Case("span_count, min", [policy("span_count", min_spans=5)]),
        Case("span_count, range", [policy("span_count", min_spans=2, max_spans=4)]),
        Case("boolean_attribute", [NOISE]),
        Case("boolean_attribute, false", [policy(flag, key="mixed", value=False)]),
        Case("boolean_attribute, invert", [policy(flag, key="noise", value=True, invert_match=True)]),
        Case("rate_limiting, room for all", [policy("rate_limiting", spans_per_second=1, burst_capacity=1_000_000)]),
        Case(
            "rate_limiting, ten of three",
            [both(THREE, policy("rate_limiting", spans_per_second=1, burst_capacity=30))],
            by_count=True,
        ),
        Case("rate_limiting, too large", [both(THREE, policy("rate_limiting", spans_per_second=1, burst_capacity=2))]),
        Case("bytes_limiting, room for all", [policy("bytes_limiting", bytes_per_second=1, burst_capacity=2**40)]),
        Case("bytes_limiting, to the byte", one_sized(marked_bytes)),
        Case("bytes_limiting, a byte short", one_sized(marked_bytes - 1)),
        Case(
            "ottl_condition, span",
            [
                policy(
                    ottl,
                    error_mode="ignore",
                    span=['attributes["http.route"] == "/pay"', 'span.attributes["http.response.status_code"] >= 500'],
                )
            ],
        ),
        Case(
            "ottl_condition, resource",
            [
                policy(
                    ottl,
                    error_mode="ignore",
                    span=[
                        'resource.attributes["service.name"] == "checkout" and span.status.code == STATUS_CODE_ERROR'
                    ],
                )
            ],
        ),
        Case(
            "ottl_condition, spanevent",
            [policy(ottl, error_mode="ignore", spanevent=['spanevent.name == "exception"'])],
        ),
        Case(
            "ottl_condition, both",
            [
                policy(
                    ottl,
                    error_mode="ignore",
                    span=['IsMatch(name, "^GET /v1")'],
                    spanevent=['attributes["exception.type"] == "ValueError"'],
                )
            ],
        ),
        Case(
            "ottl_condition, ignore",
            [policy(ottl, error_mode="ignore", span=['Substring(attributes["http.route"], 0, 4) == "/pay"'])],
        ),
        Case("ottl_condition, silent", [policy(ottl, span=['Substring(attributes["http.route"], 0, 4) == "/pay"'])]),
        Case(
            "ottl_condition, propagate",
            [policy(ottl, error_mode="propagate", span=['Substring(attributes["http.route"], 0, 4) == "/pay"'])],
        ),
        Case("and", [both(CHECKOUT, ERROR)]),
        Case("and, with not", [both(CHECKOUT, opposite(SLOW))]),
        Case(
            "and, with invert_match",
            [both(policy(text, key="service.name", values=["checkout"], invert_match=True), TENTH)],
        ),
        Case("not", [opposite(ERROR)]),
        Case("drop before sample", [policy("always_sample"), both(NOISE, kind="drop")]),
        Case("drop, with not", [policy("always_sample"), both(CHECKOUT, opposite(ERROR), kind="drop")]),
        Case("drop alone", [both(NOISE, kind="drop")]),
        Case("invert beside a match", [policy(text, key="http.route", values=["/pay"], invert_match=True), ERROR]),
        Case("any of several", [ERROR, SLOW, TENTH, CHECKOUT]),
        Case("sample_on_first_match", [ERROR, both(NOISE, kind="drop"), TENTH], {"sample_on_first_match": True}),
        Case(
            "composite, a policy claims",
            [
                policy(
                    composite,
                    max_total_spans_per_second=100_000,
                    policy_order=order,
                    composite_sub_policy=[few, rest],
                    rate_allocation=[{"policy": "few", "percent": 0}, {"policy": "rest", "percent": 99}],
                )
            ],
        ),
        Case(
            "composite, a share too small",
            [
                policy(
                    composite,
                    max_total_spans_per_second=200,
                    policy_order=order,
                    rate_allocation=shares,
                    composite_sub_policy=[few, {**both(THREE, TENTH), "name": "rest"}],
                )
            ],
        ),
        Case(
            "composite, order of the list",
            [
                policy(
                    composite,
                    max_total_spans_per_second=200,
                    policy_order=["rest", "few"],
                    rate_allocation=shares,
                    composite_sub_policy=[few, {**both(ERROR, TENTH), "name": "rest"}],
                )
            ],
        ),
        Case(
            "composite, no share",
            [
                policy(
                    composite,
                    max_total_spans_per_second=100_000,
                    policy_order=order,
                    composite_sub_policy=[few, rest],
                    rate_allocation=[{"policy": "few", "percent": 100}],
                )
            ],
        ),
        Case("maximum_trace_size_bytes", [policy("always_sample")], {"maximum_trace_size_bytes": 900}),
        Case("drop_pending_traces_on_shutdown", [policy("always_sample")], {"drop_pending_traces_on_shutdown": True}),
        Case(
            "span-ingest",
            [both(CHECKOUT, ERROR), policy("span_count", min_spans=6)],
            {"sampling_strategy": "span-ingest"},
        ),
        Case(
            "span-ingest, drop",
            [policy("always_sample"), both(NOISE, kind="drop")],
            {"sampling_strategy": "span-ingest"},
        ),
    ]


# Traces.


def traces(count: int, seed: int) -> list[ExportTraceServiceRequest]:
    """Requests with the spans of ``count`` traces, mixed; the first trace is the one marked, and comes whole."""
    rng = random.Random(seed)
    spans = [span for number in range(1, count) for span in _trace(rng, rng.randbytes(16))]
    requests = [_marked(rng)]
    made = ExportTraceServiceRequest()
    for start in range(0, len(spans), 40):
        made = ExportTraceServiceRequest()
        part = spans[start : start + 40]
        rng.shuffle(part)
        for offset in range(0, len(part), 8):
            resource = made.resource_spans.add()
            put(resource.resource, "service.name", rng.choice(["checkout", "cart", "search", "ads"]))
            put(resource.resource, "replica", rng.choice([1, 1, 1, 2, "2"]))
            for inner in range(offset, min(offset + 8, len(part)), 4):
                scope = resource.scope_spans.add()
                scope.scope.name = "peer"
                scope.spans.extend(part[inner : min(inner + 4, offset + 8, len(part))])
        requests.append(made)
    return requests


def _marked(rng: random.Random) -> ExportTraceServiceRequest:
    made = ExportTraceServiceRequest()
    resource = made.resource_spans.add()
    put(resource.resource, "service.name", "marked")
    scope = resource.scope_spans.add()
    scope.scope.name = "peer"
    scope.spans.extend(_trace(rng, rng.randbytes(16))[:1])
    put(scope.spans[0], "marked", "yes")
    return made


def _trace(rng: random.Random, trace_id: bytes) -> list[Any]:
    """Some spans, all with a parent (one without has another size in the Collector).

    Most are short, quick and without errors.
    """
    target = ExportTraceServiceRequest().resource_spans.add().scope_spans.add().spans
    state = rng.choice(
        ["", "", "", "tier=gold", "a=1,tier=silver", "tier=gold,tier=gold", "tier=bronze", "TIER=gold,tier=gold"]
    )
    flags = rng.choice([0, 0, 0x100, 0x101])
    noisy, bad, base = rng.random() < 0.1, rng.random() < 0.2, NOW + rng.randrange(10**9)
    for _ in range(rng.choice([1, 1, 2, 3, 3, 3, 4, 6, 9])):
        span = target.add(trace_id=trace_id, span_id=rng.randbytes(8), kind=2, trace_state=state, flags=flags)
        span.parent_span_id = rng.randbytes(8)
        route = rng.choice(["/pay", "/cart", "/v1/name/7", "/p", "", "/home"])
        span.name = f"GET {route}"
        span.start_time_unix_nano = base + rng.randrange(1, 200) * MS
        span.end_time_unix_nano = (
            span.start_time_unix_nano
            + rng.choice([0, 5, 50, 400, 600, 999, 1500 if bad else 7]) * MS
            + rng.randrange(MS)
        )
        span.status.code = 2 if bad and rng.random() < 0.5 else rng.choice([0, 0, 1])
        span.status.SetInParent()  # present even if empty: the Collector counts it as if it were
        if rng.random() < 0.8:
            put(span, "http.route", route)
        if rng.random() < 0.8:
            put(span, "http.response.status_code", rng.choice([200, 200, 200, 302, 404, 500, "500"]))
        if noisy and rng.random() < 0.5:
            put(span, "noise", True)
        if rng.random() < 0.05:
            put(span, "mixed", rng.choice([0, 5, True, False, "", "text", 1.5]))
        if rng.random() < 0.1:
            event = span.events.add(name=rng.choice(["exception", "log"]), time_unix_nano=span.start_time_unix_nano)
            put(event, "exception.type", rng.choice(["ValueError", "KeyError"]))
    return list(target)


def put(owner: Any, key: str, value: bool | float | str) -> None:
    kind = {bool: "bool_value", int: "int_value", float: "double_value", str: "string_value"}[type(value)]
    setattr(owner.attributes.add(key=key).value, kind, value)


def lasted_ms(requests: list[ExportTraceServiceRequest]) -> dict[str, int]:
    """Each trace's duration."""
    ends: dict[str, tuple[int, int]] = {}
    for made in requests:
        for resource in made.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    low, high = ends.get(span.trace_id.hex(), (2**64, 0))
                    ends[span.trace_id.hex()] = min(low, span.start_time_unix_nano), max(high, span.end_time_unix_nano)
    return {each: (high - low) // MS for each, (low, high) in ends.items()}


# Both programs.


def configuration(chosen: list[Case], folder: Path, port: int, own: dict[str, Any], health: int = 0) -> dict[str, Any]:
    """A pipeline a case, behind one receiver."""
    names = [f"case{place}" for place in range(len(chosen))]
    service: dict[str, Any] = {
        "telemetry": own,
        "pipelines": {
            f"traces/{name}": {
                "receivers": ["otlp"],
                "processors": [f"tail_sampling/{name}"],
                "exporters": [f"file/{name}"],
            }
            for name in names
        },
    }
    written: dict[str, Any] = {
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": f"127.0.0.1:{port}"}}}},
        "processors": {
            f"tail_sampling/{name}": {"decision_wait": "300s", **case.keys, "policies": case.policies}
            for name, case in zip(names, chosen, strict=True)
        },
        "exporters": {f"file/{name}": {"path": str(folder / f"{name}.jsonl")} for name in names},
        "service": service,
    }
    if health:
        written["extensions"] = {"health_check": {"endpoint": f"127.0.0.1:{health}"}}
        service["extensions"] = ["health_check"]
    return written


def kept(
    chosen: list[Case],
    requests: list[ExportTraceServiceRequest],
    program: list[str],
    written: dict[str, Any],
    folder: Path,
    ready: str,
    port: int,
) -> list[dict[str, int]]:
    """Of each case, the spans kept of each trace."""
    (folder / "config.yaml").write_text(json.dumps(written))  # JSON is YAML
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*program, "--config", str(folder / "config.yaml")], stdout=log, stderr=log, cwd=folder, env=environment
        )
    try:
        _wait_for(ready, process, folder / "log")
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            export = channel.unary_unary(METHOD, bytes, bytes)
            for made in requests:
                export(made.SerializeToString(), timeout=30)
        process.terminate()
        process.wait(120)
    finally:
        process.kill()
        process.wait()
    found = []
    for place in range(len(chosen)):
        spans: collections.Counter[str] = collections.Counter()
        file = folder / f"case{place}.jsonl"
        for line in file.read_text().splitlines() if file.exists() else ():
            for resource in json.loads(line).get("resourceSpans", ()):
                spans.update(span["traceId"] for scope in resource["scopeSpans"] for span in scope["spans"])
        found.append(dict(spans))
    return found


def _wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 90
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
            if answer.status == 200:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{url} is not ready:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.1)


@dataclasses.dataclass(frozen=True)
class Answer:
    case: Case
    ours: dict[str, int]
    theirs: dict[str, int]
    durations: dict[str, int]

    @property
    def equal(self) -> bool:
        """The same traces, with the same number of spans each; where order decides, as many."""
        if self.case.by_count:
            return len(self.ours) == len(self.theirs)
        return self.ours == self.theirs

    @property
    def as_documented(self) -> bool:
        """Equal, or the Collector keeps what the case says it keeps beyond."""
        if self.equal:
            return True
        beyond = {each for each in self.theirs if each not in self.ours}
        same = all(self.theirs.get(each) == spans for each, spans in self.ours.items())
        return self.case.excess is not None and same and all(self.case.excess(self.durations[each]) for each in beyond)


def compare(trace_count: int, seed: int, folder: Path, otelcol: str) -> list[Answer]:
    """Both programs over the same requests."""
    requests = traces(trace_count, seed)
    chosen = cases(requests[0].ByteSize())
    answers = []
    for name in ("tailrace", "otelcol"):
        own, port, side = folder / name, free_port(), free_port()
        own.mkdir()
        if name == "otelcol":
            written = configuration(chosen, own, port, {"metrics": {"level": "none"}, "logs": {"level": "warn"}}, side)
            answers.append(kept(chosen, requests, [otelcol], written, own, f"http://127.0.0.1:{side}/", port))
        else:
            written = configuration(
                chosen, own, port, {"metrics": {"address": f"127.0.0.1:{side}"}, "logs": {"level": "warn"}}
            )
            program = [sys.executable, "-c", "from collector.cli import main; main()", "run"]
            answers.append(kept(chosen, requests, program, written, own, f"http://127.0.0.1:{side}/health/ready", port))
    durations = lasted_ms(requests)
    return [Answer(case, ours, theirs, durations) for case, ours, theirs in zip(chosen, *answers, strict=True)]


def plot(answers: list[Answer], file: Path) -> None:
    """Both counts of every case beside each other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 12), layout="tight")
    axes = figure.subplots()
    places = range(len(answers))
    axes.barh([place - 0.2 for place in places], [len(answer.ours) for answer in answers], 0.4, label="Tailrace")
    axes.barh([place + 0.2 for place in places], [len(answer.theirs) for answer in answers], 0.4, label="Go collector")
    axes.set_yticks(list(places), [answer.case.name for answer in answers], fontsize=7)
    axes.set_ylim(len(answers) - 0.4, -0.6)
    axes.set_xlabel(f"traces kept of {max(len(answer.durations) for answer in answers)}")
    axes.legend()
    figure.savefig(file, dpi=80)


# CPU.

COST: Final = [
    both(
        policy("string_attribute", key="http.route", values=["^/(health|ready)$"], enabled_regex_matching=True),
        kind="drop",
    ),
    ERROR,
    policy("latency", threshold_ms=2000),
    policy("numeric_attribute", key="http.response.status_code", min_value=500, max_value=599),
    policy("probabilistic", sampling_percentage=10),
]
SPANS_A_TRACE, SPANS_A_REQUEST = 10, 500


def load(span_count: int, seed: int) -> list[bytes]:
    """Requests of ``SPANS_A_REQUEST`` spans of 10 attributes over two services.

    The spans of a trace are close to each other.
    """
    rng = random.Random(seed)
    encoded = []
    for _ in range(span_count // SPANS_A_REQUEST):
        made = ExportTraceServiceRequest()
        ids = [rng.randbytes(16) for _ in range(SPANS_A_REQUEST // SPANS_A_TRACE)]
        for service in ("cart", "checkout"):
            resource = made.resource_spans.add()
            put(resource.resource, "service.name", service)
            scope = resource.scope_spans.add()
            for number in range(SPANS_A_REQUEST // 2):
                start = NOW + rng.randrange(10**9)
                span = scope.spans.add(
                    trace_id=ids[number % len(ids)],
                    span_id=rng.randbytes(8),
                    parent_span_id=rng.randbytes(8),
                    name="GET /cart",
                )
                span.start_time_unix_nano, span.end_time_unix_nano = start, start + rng.randrange(300) * MS
                span.kind, span.status.code = 2, 2 if rng.random() < 0.001 else 0
                put(
                    span,
                    "http.route",
                    rng.choice(["/cart", "/pay", "/health"] if number % 50 == 0 else ["/cart", "/pay"]),
                )
                put(span, "http.response.status_code", rng.choice([200, 200, 302, 404]))
                for key in range(8):
                    put(span, f"attribute.{key}", f"value {rng.randrange(50)}")
        encoded.append(made.SerializeToString())
    return encoded


def cpu_s_per_million(name: str, encoded: list[bytes], folder: Path, otelcol: str) -> float:
    """Of one program, from the first request to the last decision."""
    port, side = free_port(), free_port()
    own: dict[str, Any] = {"logs": {"level": "warn"}, "metrics": {"level": "none"}}
    if name == "tailrace":
        own["metrics"] = {"address": f"127.0.0.1:{side}"}
    written = configuration(
        [Case("cost", COST, {"decision_wait": "2s"})], folder, port, own, side if name == "otelcol" else 0
    )
    written["exporters"] = {"nop": {}}
    written["service"]["pipelines"]["traces/case0"]["exporters"] = ["nop"]
    (folder / "config.yaml").write_text(json.dumps(written))
    program = (
        [otelcol] if name == "otelcol" else [sys.executable, "-c", "from collector.cli import main; main()", "run"]
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*program, "--config", str(folder / "config.yaml")], stdout=log, stderr=log, cwd=folder, env=environment
        )
    try:
        _wait_for(f"http://127.0.0.1:{side}/{'health/ready' if name == 'tailrace' else ''}", process, folder / "log")
        watched = psutil.Process(process.pid)
        before = watched.cpu_times()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            export = channel.unary_unary(METHOD, bytes, bytes)
            for each in encoded:
                export(each, timeout=30)
        time.sleep(4.5)  # the longest a decision takes after the last span
        after = watched.cpu_times()
    finally:
        process.kill()
        process.wait()
    spent = after.user + after.system - before.user - before.system
    return 1e6 * spent / (len(encoded) * SPANS_A_REQUEST)


def print_cost(span_count: int, seed: int, otelcol: str, rounds: int = 3) -> None:
    encoded = load(span_count, seed)
    found: dict[str, list[float]] = {"tailrace": [], "otelcol": []}
    for turn in range(rounds):
        for name, values in found.items():
            with tempfile.TemporaryDirectory() as folder:
                values.append(cpu_s_per_million(name, encoded, Path(folder), otelcol))
        print(f"round {turn + 1}: " + ", ".join(f"{name} {values[-1]:.1f}" for name, values in found.items()))
    ours, theirs = (statistics.median(values) for values in found.values())
    print(
        f"CPU seconds per million spans, OTLP/gRPC in, tail_sampling, nop out: "
        f"Tailrace {ours:.1f}, Go {theirs:.1f}: {theirs / ours:.1f} x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", type=Path, help="write a picture of the table (needs matplotlib)")
    parser.add_argument("--cpu", action="store_true", help="measure CPU instead")
    parser.add_argument("--spans", type=int, default=100_000, help="with --cpu: spans a round")
    arguments = parser.parse_args()
    otelcol = CACHE / "otelcol"
    if not otelcol.exists():
        sys.exit("otelcol is not built: run `make backends`")
    if arguments.cpu:
        print_cost(arguments.spans, arguments.seed, str(otelcol))
        return
    with tempfile.TemporaryDirectory() as folder:
        answers = compare(arguments.traces, arguments.seed, Path(folder), str(otelcol))
    table = Table(
        "policy",
        "kept by Tailrace",
        "kept by the Go collector",
        "equal",
        title=f"{arguments.traces} traces, seed {arguments.seed}",
    )
    for answer in answers:
        verdict = (
            ("yes, as many" if answer.case.by_count else "yes")
            if answer.equal
            else f"no: {answer.case.differs or 'NOT EXPECTED'}"
        )
        table.add_row(answer.case.name, str(len(answer.ours)), str(len(answer.theirs)), verdict)
    Console(width=150).print(table)
    if arguments.plot:
        plot(answers, arguments.plot)
    equal = sum(answer.equal for answer in answers)
    print(
        f"{equal} of {len(answers)} equal, "
        f"{sum(answer.as_documented and not answer.equal for answer in answers)} differ as documented"
    )
    sys.exit(not all(answer.as_documented for answer in answers))


if __name__ == "__main__":
    main()
