"""docs/reference/cardinality.md, rule 12: named and merged series always add up to the truth, to the last unit.

The reference is slow, plain Python. It keeps what every source has counted, and reads the output of the processor as a
backend does (by name, by time; a restart shows in the start time or in a fall). Doubles are multiples of 1/8, so that
their sums are exact.

After a restart of the gateway, old sources are baselines (rules 2 and 3): the truth is reduced by exactly what each
source gained since its last point, unless it is named again under a name that the backend knows. For the backend, too,
an old series that it does not know is a baseline: its first value was counted before.
"""

import asyncio
import dataclasses
import random
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.api import SharedState
from collector.model import Metrics, Signal
from collector.testing import FakeClock, FakeHost, FakeStorage, Sink, hand_over, make_settings
from processors.cardinality import factory
from processors.cardinality.config import CardinalityConfig

DELTA, CUMULATIVE = 1, 2
SECOND, MS = 1_000_000_000, 1_000_000
SOURCES = 7
BASE = 6  # the scale at which the reference keeps exponential histograms
STALE_S = 300.0
OVERFLOW_KEY = "otel.metric.overflow"
OVERFLOW = ((OVERFLOW_KEY, "True"),)
TENANTS = ("t0", "t1")
TOTALS = ["sum_int", "sum_double", "histogram", "exponential"]
LATEST = ["updown", "gauge/last", "gauge/sum", "gauge/max", "gauge/min", "gauge/mean"]


class Source:
    """One series of a program that counts."""

    def __init__(self, number, kind, temporality, rng, attributes):
        self.number, self.kind, self.temporality, self.rng = number, kind, temporality, rng
        self.attributes, self.name = attributes, tuple(sorted(attributes.items()))
        self.start = 0
        self.value = Counter()  # since start (cumulative) or since the last report (delta)
        self.reported = Counter()  # of that, what was in the last report
        self.truth = Counter()  # everything it has reported, less what was lost by restarts of the gateway
        self.time = 0
        self.scale = rng.randint(2, BASE)
        self.latest = 0
        self.seen_s = None
        self.last_point = None

    def observe(self):
        """Count something."""
        gain = Counter()
        if self.kind == "sum_int":
            gain["value"] = self.rng.randrange(0, 50)
        elif self.kind == "sum_double":
            gain["value"] = self.rng.randrange(0, 50) / 8
        else:
            for _ in range(self.rng.randrange(0, 4)):
                gain["count"] += 1
                if self.kind == "histogram":
                    bucket = self.rng.randrange(3)
                    gain["bucket", bucket] += 1
                    gain["sum"] += bucket
                else:
                    side = self.rng.choice(["+", "-", "0"])
                    gain[
                        side,
                        0
                        if side == "0"
                        else self.rng.choice([self.rng.randrange(-40, 40), self.rng.randrange(-900, 900)]),
                    ] += 1
                    gain["sum"] += 1
        self.value.update(gain)
        self.truth.update(gain)

    def fill(self, metric, time):
        """Report."""
        if self.kind.startswith("gauge") or self.kind in {"updown", "summary"}:
            self.latest = self.rng.randrange(-20, 40) if self.number % 2 else self.rng.randrange(-20, 40) / 8
        else:
            self.observe()
        point = metric.data_points.add(time_unix_nano=time, start_time_unix_nano=self.start)
        for key, text in self.attributes.items():
            point.attributes.add(key=key).value.string_value = text
        if self.kind == "sum_int":
            point.as_int = self.value["value"]
        elif self.kind == "sum_double":
            point.as_double = self.value["value"]
        elif self.kind == "histogram":
            point.count, point.sum = self.value["count"], self.value["sum"]
            point.explicit_bounds.extend([1.0, 2.0])
            point.bucket_counts.extend(self.value["bucket", i] for i in range(3))
        elif self.kind == "summary":
            point.count = 1
        elif self.kind == "exponential":
            if self.rng.random() < 0.1:
                self.scale = max(0, self.scale - 1)
            fill_exponential(point, self.value, self.scale)
        elif isinstance(self.latest, int):
            point.as_int = self.latest
        else:
            point.as_double = self.latest
        self.time = time
        self.reported = Counter(self.value)
        if self.temporality == DELTA:
            self.value.clear()
            self.start = time
        self.last_point = point
        return point

    def restart(self, now):
        """A new process, which counts from 0."""
        self.value.clear()
        self.reported.clear()
        self.start = now


def fill_exponential(point, value, scale):
    point.scale, point.count, point.sum, point.zero_count = scale, value["count"], value["sum"], value["0", 0]
    for side, buckets in (("+", point.positive), ("-", point.negative)):
        at = Counter()
        for key, count in value.items():
            if isinstance(key, tuple) and key[0] == side and count:
                at[key[1] >> (BASE - scale)] += count
        if at:
            buckets.offset = min(at)
            buckets.bucket_counts.extend(at[i] for i in range(min(at), max(at) + 1))


def read(point):
    """The contents of a point as a Counter; exponential buckets by (side, scale, index)."""
    found = Counter()
    if hasattr(point, "as_int"):
        found["value"] = point.as_int + point.as_double
        return found
    found["count"] = point.count
    found["sum"] = point.sum
    if hasattr(point, "bucket_counts"):
        found.update({("bucket", i): count for i, count in enumerate(point.bucket_counts)})
        return found
    found["0", 0, 0] = point.zero_count
    for side, buckets in (("+", point.positive), ("-", point.negative)):
        found.update(
            {(side, point.scale, buckets.offset + i): count for i, count in enumerate(buckets.bucket_counts) if count}
        )
    return found


def at_scale(content, scale, source=False):
    """The contents with exponential buckets at a lower scale."""
    found = Counter()
    for key, count in content.items():
        if isinstance(key, tuple) and key[0] in {"+", "-", "0"}:
            own, index = (BASE, key[1]) if source else key[1:]
            found[key[0], 0 if key[0] == "0" else index >> (own - scale)] += count
        else:
            found[key] += count
    return Counter({key: count for key, count in found.items() if count})


class Backend:
    """Reads the output of the processor by name, as a backend does."""

    def __init__(self, temporality):
        self.temporality = temporality
        self.last = {}
        self.total = defaultdict(list)  # name → Counters that add up
        self.ended = {}
        self.now_named = set()
        self.overflow_starts = defaultdict(set)
        self.gateway_start = 0

    def restart(self, now):
        """Another gateway writes from now on; names that have ended come back as other series."""
        self.gateway_start = now
        self.last = {name: point for name, point in self.last.items() if name in self.now_named or is_overflow(name)}
        self.now_named = set()

    def take(self, wire):
        for point in sorted(points_of(wire), key=lambda point: point.time_unix_nano):
            time, name = point.time_unix_nano, name_of(point)
            if point.flags & 1:
                assert name not in self.ended or self.ended[name] < time or name in self.now_named
                self.now_named.discard(name)
                self.ended[name] = time
                continue
            if name in self.last and time <= self.last[name].time_unix_nano:
                assert not is_overflow(name)
                continue  # a backend refuses it
            if is_overflow(name):
                self.overflow_starts[name].add(point.start_time_unix_nano)
            else:
                self.now_named.add(name)
            before = self.last.get(name)
            self.last[name] = point
            if hasattr(point, "quantile_values"):
                continue
            content = read(point)
            if before is None and self.temporality == CUMULATIVE and point.start_time_unix_nano < self.gateway_start:
                continue
            restarted = before is None or point.start_time_unix_nano != before.start_time_unix_nano
            if self.temporality == DELTA or restarted or fell(content, read(before)):
                self.total[name].append(("+", content))
            else:
                self.total[name].append(("-", read(before)))
                self.total[name].append(("+", content))

    def sum(self, scale, names=lambda name: True):
        found = Counter()
        for sign, content in (part for name, parts in self.total.items() if names(name) for part in parts):
            if sign == "+":
                found.update(at_scale(content, scale))
            else:
                found.subtract(at_scale(content, scale))
        return Counter({key: count for key, count in found.items() if count})


def name_of(point):
    """The attributes of a point; resource and metric are the same for all points."""
    return tuple(sorted((a.key, a.value.string_value or str(a.value.bool_value)) for a in point.attributes))


def is_overflow(name):
    return name[0][0] == OVERFLOW_KEY


def fell(now, before):
    scales = [key[1] for key in (*now, *before) if isinstance(key, tuple) and key[0] in {"+", "-"}]
    scale = min(scales, default=0)
    now, before = at_scale(now, scale), at_scale(before, scale)
    return any(now[key] < count for key, count in before.items() if key != "sum")


def points_of(wire):
    """All points of a request."""
    return [
        point
        for resource in ExportMetricsServiceRequest.FromString(wire).resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in getattr(metric, metric.WhichOneof("data")).data_points
    ]


@dataclasses.dataclass
class Kind:
    """How sources are named, the configuration for it, and which names are compared separately."""

    attributes: object
    keys: dict = dataclasses.field(default_factory=dict)
    parts: list = dataclasses.field(default_factory=lambda: [lambda name: True])


WORLDS = {
    "plain": Kind(lambda number: {"user": f"u{number}"}),
    "tenants": Kind(
        lambda number: {"user": f"u{number}", "tenant": TENANTS[number % 2]},
        {"tenant": lambda rng: {"attribute": "tenant", "limit": rng.randint(1, 3), "total": rng.choice([0, 3, 4])}},
        [lambda name, tenant=tenant: ("tenant", tenant) in name for tenant in TENANTS],
    ),
    # Attributes are dropped, templated and collapsed: of some sources by several rules, of some by none.
    "rules": Kind(
        lambda number: {
            "path": f"/users/{number}" if number % 3 == 1 else "/users",
            "shard": f"s{number % 4}",
            **({"request": f"r{number}"} if number in {0, 4} else {}),
            "user": f"u{number // 2}",
        },
        {
            "attributes": lambda rng: [
                {"keys": ["request"], "action": "drop"},
                {"keys": ["path"], "action": "template"},
                {"keys": ["shard"], "action": "collapse", "max_values": rng.randint(1, 4)},
            ]
        },
    ),
}


class World:
    """Sources, the processor and a backend."""

    def __init__(self, kind, temporality, mode, seed, limit, world, storage=None):
        self.storage = storage
        self.host = FakeHost(extensions={"disk": storage})
        self.kind, self.temporality, self.rng = kind, temporality, random.Random(seed)
        self.world = world
        self.clock, self.sink, self.sent = FakeClock(), Sink(Signal.METRICS), 0
        self.settings = make_settings(
            factory, signals={Signal.METRICS}, clock=self.clock, outputs={Signal.METRICS: self.sink}
        )
        self.keys = {
            "mode": mode,
            "window": "1000s",
            "state_ttl": "1000s",
            "overflow": {"stale_after": "300s", "flush_interval": "60s"},
            "storage": "disk" if storage else "",
        }
        if kind.startswith("gauge/"):
            self.keys["gauge"] = [{"metrics": ["*"], "fold": kind.partition("/")[2]}]
        self.limit = limit
        self.keys |= {name: make(self.rng) for name, make in WORLDS[world].keys.items()}
        self.sut = self.make(None)
        self.sources = [Source(i, kind, temporality, self.rng, WORLDS[world].attributes(i)) for i in range(SOURCES)]
        self.backend, self.seen = Backend(temporality), 0
        self.gone = set()
        self.reloaded_s = -1.0
        self.restarts, self.restarted_s = 0, -1.0

    def make(self, previous):
        config = CardinalityConfig.model_validate({**self.keys, "limit": self.limit})
        return hand_over(previous, factory.create(self.settings, config), config)

    def metric(self, made):
        metric = made.resource_metrics.add().scope_metrics.add().metrics.add(name="requests")
        if self.kind.startswith("gauge"):
            return metric.gauge
        if self.kind == "summary":
            return metric.summary
        data = {"histogram": metric.histogram, "exponential": metric.exponential_histogram}.get(self.kind, metric.sum)
        data.aggregation_temporality = self.temporality
        if data is metric.sum:
            data.is_monotonic = self.kind != "updown"
        return data

    async def send(self, *fillers):
        made = ExportMetricsServiceRequest()
        data = self.metric(made)
        for filler in fillers:
            filler(data)
        points = list(data.data_points)
        self.rng.shuffle(points)
        del data.data_points[:]
        data.data_points.extend(points)
        self.sent += len(points)
        await self.sut.consume(Metrics.from_wire(made.SerializeToString()))

    def report(self, source, time, costs):
        def fill(data):
            if not source.start:
                source.start = time - 1
            before = Counter(source.reported)
            source.fill(data, time)
            is_old = (
                source.seen_s is not None
                and source.seen_s <= self.restarted_s
                and source.start < self.backend.gateway_start
            )
            if is_old and self.temporality == CUMULATIVE:
                costs[source.number] = Counter(source.reported)
                costs[source.number].subtract(before)
            source.seen_s = self.clock.monotonic_s()
            self.gone.discard(source.number)

        return fill

    async def reports(self, numbers, each=1):
        """Some sources report, each of them ``each`` times, all in one batch in any order."""
        await self.clock.advance(1)
        self.absorb()
        now, costs, at = self.clock.time_unix_nano(), {}, len(self.sink.batches)
        await self.send(*(self.report(self.sources[n], now + i, costs) for n in numbers for i in range(each)))
        passed = {name_of(point) for batch in self.sink.batches[at:] for point in points_of(batch.wire)}
        for number, cost in costs.items():
            source = self.sources[number]
            if source.name not in passed or source.name not in self.backend.last:
                source.truth.subtract(cost)

    async def step(self, op, number):
        source = self.sources[number]
        named = source.name in self.backend.now_named
        if op == "report":
            await self.reports(self.rng.sample(range(SOURCES), self.rng.randint(1, SOURCES)))
        elif op == "twice":
            await self.reports(self.rng.sample(range(SOURCES), 3), each=2)
        elif op == "restart" and source.start:
            await self.clock.advance(1)
            source.restart(self.clock.time_unix_nano())
        elif op == "again" and self.knows(source):  # the same point, and an older one
            await self.clock.advance(1)
            await self.send(lambda data: data.data_points.add().CopyFrom(source.last_point))
            old = type(source.last_point)()
            old.CopyFrom(source.last_point)
            old.time_unix_nano -= 5
            await self.send(lambda data: data.data_points.add().CopyFrom(old))
        elif op == "end" and source.last_point is not None:
            await self.clock.advance(1)
            now = self.clock.time_unix_nano()

            def end(data):
                point = data.data_points.add(time_unix_nano=now, flags=1)
                for key, text in source.attributes.items():
                    point.attributes.add(key=key).value.string_value = text

            await self.send(end)
            self.gone.add(number)
        elif op == "silence":
            await self.clock.advance(self.rng.choice([20, 100, 250]))
            await self.reports(range(SOURCES))
        # long enough for a source to lose its slot
        elif op == "long_silence" and self.world != "rules" and (named or self.kind in LATEST):
            for _ in range(6):
                await self.clock.advance(200)
                await self.reports(n for n in range(SOURCES) if n != number)
        elif op == "reload":
            self.limit = self.rng.randint(1, SOURCES)
            self.reloaded_s = self.clock.monotonic_s()
            old, self.sut = self.sut, self.make(self.sut)
            await old.shutdown()
            await self.sut.start(self.host)
            if self.temporality == DELTA and self.world == "rules":
                self.backend.now_named.clear()  # a merged delta series that loses its slot just ends
        elif op == "gateway":
            await self.gateway_restarts()
        elif op in {"stored", "killed"}:
            await self.gateway_restarts_with_storage(is_killed=op == "killed")
        await self.flush()

    async def gateway_restarts(self):
        """A new process, without the state of the old one."""
        await self.sut.shutdown()
        self.absorb()
        await self.clock.advance(1)
        now = self.clock.time_unix_nano()
        self.backend.restart(now)
        self.settings = dataclasses.replace(self.settings, start_time_unix_nano=now, shared=SharedState())
        self.restarts, self.restarted_s, self.reloaded_s = (
            self.restarts + 1,
            self.clock.monotonic_s(),
            self.clock.monotonic_s(),
        )
        self.sut = self.make(None)
        await self.sut.start(self.host)

    async def gateway_restarts_with_storage(self, *, is_killed):
        """A new process, with the state that the old one has saved; nothing has arrived since its last flush."""
        if is_killed:
            await self.sut._flush_task.stop()
        else:
            await self.sut.shutdown()
        self.absorb()
        await self.clock.advance(1)
        now = self.clock.time_unix_nano()
        self.settings = dataclasses.replace(self.settings, start_time_unix_nano=now, shared=SharedState())
        self.sut = self.make(None)
        await self.sut.start(self.host)

    def knows(self, source):
        """Of merged latest values only live sources are known; for others, an old point would be a new one."""
        if source.last_point is None or source.seen_s <= self.restarted_s:
            return False
        if self.kind not in LATEST:
            return True
        return (
            self.clock.monotonic_s() - source.seen_s < 200
            and source.number not in self.gone
            and source.seen_s > self.reloaded_s
        )

    async def flush(self):
        await self.clock.advance(60.1)
        self.absorb()

    def absorb(self):
        """Pass new output to the backend."""
        for batch in self.sink.batches[self.seen :]:
            self.backend.take(batch.wire)
        self.seen = len(self.sink.batches)

    def check(self):
        ledger = self.settings.telemetry.ledger
        dropped = ledger.dropped_count(Signal.METRICS)
        assert (
            self.sent + ledger.created[Signal.METRICS] == self.sink.item_count + ledger.folded[Signal.METRICS] + dropped
        )
        if self.keys["mode"] == "observe":
            assert self.sink.item_count == self.sent
            return
        assert len(self.backend.now_named) <= self.limit
        if "tenant" in self.keys:
            for tenant in TENANTS:
                assert (
                    sum(tenant in dict(name).values() for name in self.backend.now_named)
                    <= self.keys["tenant"]["limit"]
                )
        if self.kind in TOTALS and self.temporality == CUMULATIVE:
            assert all(len(starts) <= 1 + self.restarts for starts in self.backend.overflow_starts.values())
        if self.kind in TOTALS:
            scale = min(
                [source.scale for source in self.sources]
                + [
                    key[1]
                    for parts in self.backend.total.values()
                    for _, c in parts
                    for key in c
                    if isinstance(key, tuple) and len(key) == 3 and key[0] != "0"
                ]
            )
            for part in WORLDS[self.world].parts:
                truth = Counter()
                for source in self.sources:
                    if part(source.name):
                        truth.update(at_scale(source.truth, scale, source=True))
                assert self.backend.sum(scale, part) == Counter({key: count for key, count in truth.items() if count})
        elif self.kind in LATEST:
            self.check_latest()

    def check_latest(self):
        now_s = self.clock.monotonic_s()
        live = [
            source
            for source in self.sources
            if source.seen_s is not None
            and source.number not in self.gone
            and now_s - source.seen_s < STALE_S - 61
            and source.seen_s > self.reloaded_s  # a source that lost its name is merged from its next point on
            and source.name not in self.backend.now_named
        ]
        limbo = any(
            source.seen_s is not None
            and (abs(now_s - source.seen_s - STALE_S) <= 61 or source.seen_s <= self.reloaded_s)
            for source in self.sources
        )
        if not live or limbo:
            return
        fold = "sum" if self.kind == "updown" else self.kind.partition("/")[2]
        newest = max(source.time for source in live)
        expected = {
            "sum": sum(source.latest for source in live),
            "max": max(source.latest for source in live),
            "min": min(source.latest for source in live),
            "mean": sum(source.latest for source in live) / len(live),
            "last": {source.latest for source in live if source.time == newest},
        }[fold]
        point = self.backend.last[OVERFLOW]
        got = point.as_int + point.as_double
        assert got in expected if fold == "last" else got == pytest.approx(expected, abs=1e-12)

    def counted(self):
        """The counters that ``observe`` must predict."""
        metrics = self.settings.telemetry.metrics
        names = ("folded_points", "inexact_points", "slots_freed", "series", "demand", "limit", "attribute_values")
        return {name: metrics[f"tailrace_cardinality_{name}"].current() for name in names}


OPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["report", "report", "twice", "restart", "again", "end", "silence", "long_silence", "reload", "gateway"]
        ),
        st.integers(0, SOURCES - 1),
    ),
    min_size=3,
    max_size=14,
)


async def live(kind, temporality, mode, seed, limit, ops, *, world="plain", storage=None):
    world = World(kind, temporality, mode, seed, limit, world, storage)
    await world.sut.start(world.host)
    for op, number in ops:
        await world.step(op, number)
        world.check()
    await world.sut.shutdown()
    world.check()
    return world


KINDS = [(kind, temporality) for kind in TOTALS for temporality in (DELTA, CUMULATIVE)]
KINDS += [("updown", CUMULATIVE), *((kind, 0) for kind in LATEST[1:]), ("summary", 0)]


@pytest.mark.parametrize(("kind", "temporality"), KINDS)
@given(seed=st.integers(0, 2**16), limit=st.integers(1, 5), ops=OPS)
@settings(max_examples=10, deadline=None)
def test_rule_12_named_and_merged_are_the_truth(kind, temporality, seed, limit, ops):
    """After every flush, for every type and temporality; series stay within the limit."""
    asyncio.run(live(kind, temporality, "enforce", seed, limit, ops))


@pytest.mark.parametrize("world", ["tenants", "rules"])
@pytest.mark.parametrize(
    ("kind", "temporality"), [(kind, temporality) for kind in TOTALS for temporality in (DELTA, CUMULATIVE)]
)
@given(seed=st.integers(0, 2**16), limit=st.integers(1, 5), ops=OPS)
@settings(max_examples=10, deadline=None)
def test_rule_12_with_tenants_and_attribute_rules(world, kind, temporality, seed, limit, ops):
    """Also for each tenant within its limits, and for series that attribute rules merge."""
    asyncio.run(live(kind, temporality, "enforce", seed, limit, ops, world=world))


@pytest.mark.parametrize(
    ("kind", "temporality"),
    [("sum_int", CUMULATIVE), ("histogram", DELTA), ("exponential", CUMULATIVE), ("gauge/max", 0)],
)
@given(seed=st.integers(0, 2**16), limit=st.integers(1, 5), ops=OPS)
@settings(max_examples=5, deadline=None)
def test_rule_12_observe_predicts_enforce(kind, temporality, seed, limit, ops):
    """It has the same counters, and the data passes unchanged."""
    # Which named series falls silent depends on the output, so both worlds get the history of the enforcing one.
    ops = [(op, number) for op, number in ops if op != "long_silence"]
    enforced = asyncio.run(live(kind, temporality, "enforce", seed, limit, ops))
    observed = asyncio.run(live(kind, temporality, "observe", seed, limit, ops))
    assert observed.counted() == enforced.counted()


STORED_OPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["report", "twice", "restart", "again", "end", "silence", "long_silence", "reload", "stored", "killed"]
        ),
        st.integers(0, SOURCES - 1),
    ),
    min_size=3,
    max_size=14,
)


@pytest.mark.parametrize("world", ["plain", "tenants", "rules"])
@pytest.mark.parametrize(("kind", "temporality"), KINDS)
@given(seed=st.integers(0, 2**16), limit=st.integers(1, 5), ops=STORED_OPS)
@settings(max_examples=6, deadline=None)
def test_rule_12_holds_over_restarts_with_a_storage(world, kind, temporality, seed, limit, ops):
    """As if the process had never ended: the same totals, and no series that begins anew."""
    if world != "plain" and kind not in TOTALS:
        return
    asyncio.run(live(kind, temporality, "enforce", seed, limit, ops, world=world, storage=FakeStorage()))
