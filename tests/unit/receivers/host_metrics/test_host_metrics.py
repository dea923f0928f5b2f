"""What the kernel says becomes the Collector's metrics, read from a stand-in for /proc where values must be known."""

import os
import threading
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from collector.model import Signal
from collector.testing import FakeClock, FakeHost, RecordingTelemetry, Sink, eventually, make_settings
from receivers.host_metrics import factory, scrapers
from receivers.host_metrics.config import ProcessConfig
from receivers.host_metrics.metrics import METRICS
from receivers.host_metrics.scrapers import Machine

PROC = {
    "meminfo": "MemTotal: 1000 kB\nMemFree: 200 kB\nMemAvailable: 600 kB\nBuffers: 50 kB\nCached: 300 kB\n"
    "SReclaimable: 40 kB\nSUnreclaim: 10 kB\nDirty: 7 kB\n",
    "loadavg": "0.50 1.00 4.00 1/100 1234\n",
    "diskstats": "   8       0 sda 10 1 200 3000 20 2 400 5000 3 7000 9000 0 0 0 0\n 7 0 loop0 1 1 1 1 1 1 1 1 1 1 1\n"
    "broken\n",
    "vmstat": "pgfault 100\npgmajfault 30\npswpin 1\npswpout 2\npgpgin 3\npgpgout 4\n",
    "swaps": "Filename Type Size Used Priority\n/dev/swap partition 1000 250 -2\n",
    "stat": "cpu  100 0 0 0 0 0 0 0 0 0\ncpu0 100 0 0 0 0 0 0 0 0 0\nbtime 1600000000\nprocesses 4242\n",
    "uptime": "123.45 200.00\n",
}


@pytest.fixture
def root(tmp_path):
    """A root_path whose /proc has known values."""
    folder = tmp_path / "proc"
    folder.mkdir()
    for name, text in PROC.items():
        (folder / name).write_text(text)
    return str(tmp_path)


async def collected(telemetry=None, **options):
    """{(metric, attributes): value} of one collection, and the batch."""
    sink, clock = Sink(Signal.METRICS), FakeClock()
    settings = make_settings(
        factory, outputs={Signal.METRICS: sink}, clock=clock, telemetry=telemetry or RecordingTelemetry()
    )
    receiver = factory.create(settings, factory.config_type.model_validate(options))
    await receiver.start(FakeHost())
    await clock.advance(1)
    await eventually(lambda: sink.batches)
    await receiver.shutdown()
    (batch,) = sink.batches
    return points(batch), batch


def points(batch):
    names = batch.field("name", "metrics").take(batch.ancestor("metrics")).to_list()
    keys = sorted(set(batch.attributes().key.to_list()))
    columns = {key: batch.attribute(key).as_text().to_list() for key in keys}
    return {
        (name, *((key, columns[key][row]) for key in keys if columns[key][row] is not None)): value
        for row, (name, value) in enumerate(zip(names, batch.field("value").tolist(), strict=True))
    }


async def test_memory_and_load(root):
    """States of memory, utilisation if it is enabled, and the load of a CPU."""
    switches = {"system.memory.utilization": {"enabled": True}, "system.linux.memory.dirty": {"enabled": True}}
    found, _ = await collected(root_path=root, scrapers={"memory": {"metrics": switches}, "load": {}})
    usage = {key[1][1]: value for key, value in found.items() if key[0] == "system.memory.usage"}
    assert usage == {
        "free": 200 * 1024,
        "buffered": 50 * 1024,
        "cached": 340 * 1024,
        "slab_reclaimable": 40 * 1024,
        "slab_unreclaimable": 10 * 1024,
        "used": 410 * 1024,
    }
    assert found["system.memory.utilization", ("state", "used")] == 0.41
    assert found[("system.linux.memory.dirty",)] == 7 * 1024
    assert ("system.memory.limit",) not in found
    loads = [found[(f"system.cpu.load_average.{span}",)] for span in ("1m", "5m", "15m")]
    assert loads == [0.5, 1.0, 4.0]
    found, _ = await collected(root_path=root, scrapers={"load": {"cpu_average": True}})
    assert found[("system.cpu.load_average.15m",)] == 4.0 / psutil.cpu_count()


async def test_disk(root):
    """Sectors are bytes, milliseconds are seconds; excluded devices and broken lines are left out."""
    scrapers = {"disk": {"exclude": {"match_type": "regexp", "devices": ["^loop"]}}}
    found, batch = await collected(root_path=root, scrapers=scrapers)
    read, write = (("device", "sda"), ("direction", "read")), (("device", "sda"), ("direction", "write"))
    assert found == {
        ("system.disk.operations", *read): 10,
        ("system.disk.merged", *read): 1,
        ("system.disk.io", *read): 200 * 512,
        ("system.disk.operation_time", *read): 3.0,
        ("system.disk.operations", *write): 20,
        ("system.disk.merged", *write): 2,
        ("system.disk.io", *write): 400 * 512,
        ("system.disk.operation_time", *write): 5.0,
        ("system.disk.pending_operations", ("device", "sda")): 3,
        ("system.disk.io_time", ("device", "sda")): 7.0,
        ("system.disk.weighted_io_time", ("device", "sda")): 9.0,
    }
    assert set(batch.field("start_time_unix_nano").tolist()) == {1_600_000_000 * 10**9}
    only = {"disk": {"include": {"match_type": "strict", "devices": ["loop0"]}}}
    found, _ = await collected(root_path=root, scrapers=only)
    assert {dict(key[1:])["device"] for key in found} == {"loop0"}


async def test_paging_processes_and_uptime(root):
    """From vmstat, swaps, stat and uptime."""
    scrapers = {"paging": {}, "system": {}, "processes": {"metrics": {"system.processes.count": {"enabled": False}}}}
    found, _ = await collected(root_path=root, scrapers=scrapers)
    assert found["system.paging.faults", ("type", "major")] == 30
    assert found["system.paging.faults", ("type", "minor")] == 70
    assert found["system.paging.operations", ("direction", "page_out"), ("type", "major")] == 2
    assert found["system.paging.usage", ("device", "/dev/swap"), ("state", "used")] == 250 * 1024
    assert found[("system.processes.created",)] == 4242
    assert found[("system.uptime",)] == 123.45


async def test_this_machine():
    """Every scraper finds something, with the type, unit and temporality of the Collector."""
    scrapers = {name: {} for name in METRICS if name != "process"}
    found, batch = await collected(scrapers=scrapers)
    names = set(batch.field("name", "metrics").to_list())
    for scraper in ("cpu", "memory", "load", "network", "paging", "processes", "system"):
        missing = {name for name, metric in METRICS[scraper].items() if metric.is_default} - names
        assert missing <= {"system.paging.usage"}  # a machine without swap
    types = dict(zip(batch.field("name", "metrics").to_list(), batch.field("type", "metrics").tolist(), strict=True))
    monotonic = dict(
        zip(batch.field("name", "metrics").to_list(), batch.field("monotonic", "metrics").tolist(), strict=True)
    )
    assert (types["system.cpu.time"], monotonic["system.cpu.time"]) == (2, 1)
    assert (types["system.memory.usage"], monotonic["system.memory.usage"]) == (2, 0)
    assert types["system.cpu.load_average.1m"] == 1
    assert ("system.cpu.time", ("cpu", "cpu0"), ("state", "wait")) in found
    scopes = {name.rpartition("/")[2] for name in batch.field("name", "scopes").to_list()}
    assert {"cpuscraper", "memoryscraper"} <= scopes
    assert psutil.PROCFS_PATH == "/proc"


async def test_processes_are_resources():
    """This process is found by its name, with its CPU time and memory."""
    own = psutil.Process()
    include = {"match_type": "strict", "names": [own.name()]}
    switches = {"process.threads": {"enabled": True}, "process.memory.virtual": {"enabled": False}}
    _, batch = await collected(scrapers={"process": {"include": include, "metrics": switches}})
    pids = batch.attribute("process.pid", "resources").int.tolist()
    place = pids.index(os.getpid())
    assert batch.attribute("process.executable.name", "resources").text.to_list()[place] == own.name()
    assert batch.attribute("process.owner", "resources").text.to_list()[place] == own.username()
    names = set(batch.field("name", "metrics").to_list())
    assert names >= {"process.cpu.time", "process.memory.usage", "process.threads"}
    assert "process.memory.virtual" not in names
    mine = batch.ancestor("resources") == place
    started = batch.field("start_time_unix_nano")[mine]
    assert started.max() == int(own.create_time() * 10**9)


async def test_a_young_process_can_be_left_out():
    """``scrape_process_delay`` is the age from which a process is reported."""
    scrapers = {"process": {"scrape_process_delay": "1000000h"}, "system": {}}
    _, batch = await collected(scrapers=scrapers)
    assert set(batch.field("name", "metrics").to_list()) == {"system.uptime"}


async def test_a_scraper_that_fails_does_not_cost_the_others(monkeypatch, root):
    """It is logged once, until it has succeeded again."""
    telemetry = RecordingTelemetry()

    def fail(**_):
        raise PermissionError("not allowed")

    monkeypatch.setattr(psutil, "net_io_counters", fail)
    found, _ = await collected(telemetry, root_path=root, scrapers={"network": {}, "load": {}})
    assert ("system.cpu.load_average.1m",) in found
    (warning,) = telemetry.log.of_level("warning")
    assert warning.fields["scraper"] == "network"
    assert telemetry.value("tailrace_host_metrics_errors", scraper="network") == 5


async def test_a_file_system_that_cannot_be_read_is_counted_and_named(monkeypatch):
    """The others are reported."""
    telemetry = RecordingTelemetry()
    statvfs = os.statvfs
    partitions = [
        SimpleNamespace(mountpoint=place, fstype="ext4", device=device, opts="rw")
        for device, place in (("/dev/sda", "/"), ("/dev/sdb", "/secret"))
    ]

    def refuse(path):
        if str(path) == "/secret":
            raise PermissionError(13, "Permission denied")
        return statvfs(path)

    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: partitions)
    monkeypatch.setattr(scrapers, "os", SimpleNamespace(statvfs=refuse))
    found, _ = await collected(telemetry, scrapers={"filesystem": {}})
    assert {dict(key[1:])["mountpoint"] for key in found} == {"/"}
    assert telemetry.value("tailrace_host_metrics_errors", scraper="filesystem") == 1
    (warning,) = telemetry.log.of_level("warning")
    assert warning.fields["first"] == "/secret: Permission denied"


@pytest.mark.parametrize(("mute", "count"), [({}, 1), ({"mute_process_io_error": True}, 0)])
async def test_what_only_the_owner_of_a_process_may_see(monkeypatch, mute, count):
    """Its disk I/O is left out and counted, unless that is muted; its CPU time is reported."""

    def refuse(self):
        raise psutil.AccessDenied(self.pid)

    monkeypatch.setattr(psutil.Process, "io_counters", refuse)
    monkeypatch.setattr(psutil, "pids", lambda: [os.getpid()])
    telemetry = RecordingTelemetry()
    found, _ = await collected(telemetry, scrapers={"process": mute})
    assert "process.cpu.time" in {key[0] for key in found}
    assert telemetry.value("tailrace_host_metrics_errors", scraper="process") == count


@pytest.mark.parametrize(
    ("method", "mute", "attribute"),
    [("name", "mute_process_name_error", None), ("username", "mute_process_user_error", "process.owner")],
)
@pytest.mark.parametrize("is_muted", [False, True])
async def test_what_may_not_be_read_of_a_process(monkeypatch, method, mute, attribute, is_muted):
    """It is counted unless it is muted. A process without a name is not reported, one without an owner is."""

    def refuse(self):
        raise psutil.AccessDenied(self.pid)

    monkeypatch.setattr(psutil.Process, method, refuse)
    monkeypatch.setattr(psutil, "pids", lambda: [os.getpid()])
    telemetry = RecordingTelemetry()
    found, batch = await collected(telemetry, scrapers={"process": {mute: is_muted}, "load": {}})
    assert telemetry.value("tailrace_host_metrics_errors", scraper="process") == (0 if is_muted else 1)
    assert ("process.cpu.time" in {key[0] for key in found}) == (attribute is not None)
    if attribute:
        assert not batch.attribute(attribute, "resources").present.any()
        assert batch.attribute("process.pid", "resources").present.any()


async def test_control_groups_and_other_attributes_of_a_process(monkeypatch, tmp_path):
    """Off by default; what cannot be read is counted unless it is muted."""
    monkeypatch.setattr(psutil, "pids", lambda: [os.getpid()])
    switches = {"process.cgroup": {"enabled": True}, "process.owner": {"enabled": False}}
    _, batch = await collected(scrapers={"process": {"resource_attributes": switches}})
    expected = Path("/proc/self/cgroup").read_text(encoding="utf-8").strip()
    assert batch.attribute("process.cgroup", "resources").text.to_list() == [expected or None]
    assert not batch.attribute("process.owner", "resources").present.any()
    _, batch = await collected(scrapers={"process": {}})
    assert not batch.attribute("process.cgroup", "resources").present.any()
    (tmp_path / "proc").symlink_to("/proc")
    real = Path.open

    def refuse(self, *args, **options):
        if self.name == "cgroup":
            raise PermissionError(13, "Permission denied")
        return real(self, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    for is_muted in (False, True):
        telemetry = RecordingTelemetry()
        options = {"resource_attributes": switches, "mute_process_cgroup_error": is_muted}
        await collected(telemetry, root_path=str(tmp_path), scrapers={"process": options})
        assert telemetry.value("tailrace_host_metrics_errors", scraper="process") == (0 if is_muted else 1)


def test_another_root_is_that_of_one_thread(root):
    """The memory limiter, and whatever else asks psutil meanwhile, reads the process's own /proc."""
    inside, done = threading.Event(), threading.Event()
    seen = {}

    def collect():
        with Machine(root).psutil():
            seen["inside"] = psutil.PROCFS_PATH
            inside.set()
            done.wait(30)
        seen["after"] = psutil.PROCFS_PATH

    thread = threading.Thread(target=collect)
    thread.start()
    assert inside.wait(30)
    seen["elsewhere"] = psutil.PROCFS_PATH
    resident_bytes = psutil.Process().memory_info().rss
    done.set()
    thread.join(30)
    assert seen == {"inside": f"{root}/proc", "elsewhere": "/proc", "after": "/proc"}
    assert resident_bytes > 0


@pytest.mark.parametrize("name", ["process.unknown", "host.name"])
def test_unknown_attributes_of_a_process_are_refused(name):
    """With those that there are."""
    with pytest.raises(ValueError, match=f"'{name}' is not an attribute; expected some of process.cgroup"):
        ProcessConfig.model_validate({"resource_attributes": {name: {"enabled": True}}})


class HangingFileSystem:
    """A stand-in for the only file system, whose answer comes when the test allows it."""

    def __init__(self, monkeypatch):
        partition = SimpleNamespace(mountpoint="/", fstype="nfs", device="server:/", opts="rw")
        monkeypatch.setattr(psutil, "disk_partitions", lambda **_: [partition])
        # The module's own view of os, so that nothing else in the process can be held up.
        monkeypatch.setattr(scrapers, "os", SimpleNamespace(statvfs=self.statvfs))
        self.may_answer, self.calls = threading.Event(), 0

    def statvfs(self, path):
        self.calls += 1
        self.may_answer.wait(30)
        raise OSError(5, "Input/output error")


@pytest.fixture
def hanging(monkeypatch):
    """A file system that does not answer; its thread ends with the test."""
    file_system = HangingFileSystem(monkeypatch)
    yield file_system
    file_system.may_answer.set()
    for thread in threading.enumerate():
        if thread.name == "tailrace-host-metrics":
            thread.join(30)


async def hanging_receiver(**options):
    """A receiver whose first collection has been reported as too slow; its telemetry, sink and clock."""
    telemetry, sink, clock = RecordingTelemetry(), Sink(Signal.METRICS), FakeClock()
    settings = make_settings(factory, outputs={Signal.METRICS: sink}, clock=clock, telemetry=telemetry)
    config = factory.config_type.model_validate({"scrapers": {"filesystem": {}, "load": {}}, **options})
    receiver = factory.create(settings, config)
    await receiver.start(FakeHost())
    await clock.advance(1)
    await eventually(lambda: telemetry.value("tailrace_host_metrics_errors", scraper="all") >= 1)
    return receiver, telemetry, sink, clock


async def test_a_file_system_that_does_not_answer_holds_up_no_shutdown(hanging):
    """Without a timeout, the slow collection is reported and awaited, and the shutdown still ends at once."""
    receiver, _, sink, _ = await hanging_receiver(collection_interval="10ms")
    await eventually(lambda: hanging.calls == 1)
    await receiver.shutdown()
    hanging.may_answer.set()
    assert not sink.batches


async def test_without_a_timeout_a_slow_collection_is_used(hanging):
    """It takes longer than the interval and is reported, but its metrics are handed on."""
    receiver, telemetry, sink, _ = await hanging_receiver(collection_interval="10ms")
    hanging.may_answer.set()
    await eventually(lambda: sink.batches)
    assert telemetry.value("tailrace_host_metrics_errors", scraper="filesystem") == 1
    await receiver.shutdown()


async def test_after_a_timeout_one_thread_is_stuck_at_most(hanging):
    """No other collection starts until the stuck one has ended; then they work again."""
    receiver, telemetry, sink, clock = await hanging_receiver(timeout="1s", collection_interval="60s")
    await clock.advance(60)
    assert telemetry.value("tailrace_host_metrics_errors", scraper="all") == 2
    assert hanging.calls == 1
    hanging.may_answer.set()
    await eventually(receiver._result.done)
    assert not sink.batches
    await clock.advance(60)
    await eventually(lambda: sink.batches)
    await receiver.shutdown()


async def test_collection_repeats_and_survives_a_refusal(root):
    """After the initial delay, and then every interval."""
    sink, clock = Sink(Signal.METRICS), FakeClock()
    settings = make_settings(factory, outputs={Signal.METRICS: sink}, clock=clock)
    options = {"root_path": root, "collection_interval": "10s", "initial_delay": "2s", "scrapers": {"load": {}}}
    receiver = factory.create(settings, factory.config_type.model_validate(options))
    await receiver.start(FakeHost())
    await clock.advance(1)
    assert not sink.batches
    await clock.advance(1)
    await eventually(lambda: len(sink.batches) == 1)
    await clock.advance(10)
    await eventually(lambda: len(sink.batches) == 2)
    await receiver.shutdown()
    await receiver.shutdown()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scrapers": {}}, "at least one scraper is required"),
        ({"scrapers": {"cpu": {"metrics": {"system.cpu.tim": {}}}}}, "'system.cpu.tim' is not known"),
        ({"scrapers": {"disk": {"include": {"devices": ["sda"]}}}}, "match_type is required"),
        ({"scrapers": {"network": {"exclude": {"match_type": "regexp", "interfaces": ["("]}}}}, "invalid pattern"),
        ({"scrapers": {"gpu": {}}}, "gpu"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    """Each message says what is expected."""
    with pytest.raises(ValueError, match=message):
        factory.config_type.model_validate(options)
