"""The nvml backend, through the real nvidia-ml-py, against a C stand-in for the driver's library. Each case in its own process."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("nvml_stand_in.c")
ROOT = Path(__file__).parents[5]
# Imports once, then forks for each case: a case has a library and an environment of its own.
SERVER = """
import json, math, os, sys, traceback
from collector.helpers.gpu.backend import BackendUnavailableError, LayoutChangedError
from collector.helpers.gpu.nvml import NvmlBackend

def fake(**values):
    for name, value in values.items():
        os.environ[f"FAKE_NVML_{name}"] = str(value)
def plain(value):
    return None if isinstance(value, float) and math.isnan(value) else value
def known(reading):
    return {name: plain(getattr(reading, name)) for name in reading.__slots__ if name not in ("processes", "throttle_s")}

SECOND = 1_000_000_000
for line in sys.stdin:
    case = json.loads(line)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        fake(**case["faults"])
        sys.stdout = open(case["answer"], "w")
        try:
            exec(case["script"], dict(globals(), backend=NvmlBackend()))
        except BaseException:
            traceback.print_exc(file=sys.stdout)
        sys.stdout.close()
        os._exit(0)
    os.waitpid(child, 0)
    print("done", flush=True)
"""


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory):
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build the stand-in for libnvidia-ml")
    pytest.importorskip("pynvml", reason="the extra `gpu` (nvidia-ml-py) is not installed")
    folder = tmp_path_factory.mktemp("nvml")
    subprocess.run([compiler, "-Wall", "-Werror", "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", SOURCE], check=True)
    return folder


class Server:
    def __init__(self, library, folder):
        env = {key: value for key, value in os.environ.items() if not key.startswith("FAKE_NVML_")}
        env |= {"LD_LIBRARY_PATH": str(library), "PYTHONPATH": str(ROOT)}
        self._answer = folder / "answer"
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", SERVER], env=env, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, script, **faults):
        case = {"script": textwrap.dedent(script), "faults": faults, "answer": str(self._answer)}
        self._process.stdin.write(json.dumps(case) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"
        answer = self._answer.read_text()
        try:
            return json.loads(answer)
        except ValueError:
            raise AssertionError(answer) from None

    def close(self):
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def server(stand_in, tmp_path_factory):
    """The stand-in in the place of the driver's library."""
    server = Server(stand_in, tmp_path_factory.mktemp("answers"))
    yield server
    server.close()


READ = """
devices = backend.open(0)
readings = backend.read(SECOND)
print(json.dumps({
    "devices": [{name: plain(getattr(d, name)) for name in d.__slots__} for d in devices],
    "readings": [known(r) for r in readings],
    "throttle": [[plain(t) for t in r.throttle_s] for r in readings],
    "pids": [[p.pid for p in r.processes] for r in readings],
}))
"""
OPEN_FAILS = """
try:
    backend.open(0)
except BackendUnavailableError as error:
    print(json.dumps([error.reason, str(error)]))
"""


def test_two_boards_are_described_and_read(server):
    """Ids, units and every quantity arrive in our units."""
    answer = server.run(READ)
    first, second = answer["devices"]
    assert first["id"] == "GPU-00000000-0000-0000-0000-000000000000"
    assert (first["index"], first["model"], first["serial"], first["driver_version"]) == ("0", "NVIDIA Stand-in", "SN0", "580.65.06")
    assert first["memory_limit_bytes"] == 80 << 30
    assert second["id"].endswith("1")
    reading = answer["readings"][0]
    assert reading["utilization"] == 0.4
    assert reading["memory_used_bytes"] == 2 << 30
    assert reading["power_w"] == 250.0
    assert reading["energy_j"] == 5.0
    assert reading["temperature_c"] == 61.0
    assert (reading["encoder_utilization"], reading["decoder_utilization"]) == (0.05, 0.06)
    assert (reading["errors_corrected"], reading["errors_uncorrected"]) == (3.0, 1.0)
    assert (reading["pcie_transmit_bytes"], reading["pcie_receive_bytes"]) == (197_000.0, 198_000.0)
    assert answer["throttle"][0] == pytest.approx([74.0, 75.0, 269.0, 270.0, 271.0])


def test_mig_slices_have_memory_and_boards_have_power(server):
    """Utilisation is absent under MIG, never 0; identity and memory are the slice's, energy the board's."""
    answer = server.run(READ, MIG=1)
    assert [d["index"] for d in answer["devices"]] == ["0", "1", "1:0", "1:1"]
    board, part = answer["devices"][1:3]
    assert board["is_partitioned"] is True
    assert part["id"].startswith("MIG-")
    assert part["parent_id"] == board["id"]
    assert part["memory_limit_bytes"] == 10 << 30
    board_reading, part_reading = answer["readings"][1:3]
    assert board_reading["utilization"] is None
    assert part_reading["utilization"] is None
    assert board_reading["power_w"] == 250.0
    assert part_reading["power_w"] is None
    assert part_reading["energy_j"] is None
    assert part_reading["memory_used_bytes"] == 1 << 30


def test_values_that_mean_not_available_are_absent(server):
    """Sentinels of NVML and DCGM, in every type, never leave the backend."""
    answer = server.run(READ, SENTINEL=1, FAIL="nvmlDeviceGetPowerUsage=3,nvmlDeviceGetTotalEnergyConsumption=3")
    reading = answer["readings"][0]
    for name in ("utilization", "memory_used_bytes", "power_w", "energy_j", "pcie_transmit_bytes"):
        assert reading[name] is None, name
    assert answer["throttle"][0] == [None] * 5
    assert reading["temperature_c"] == 61.0


def test_an_unsupported_field_is_asked_once(server):
    """What a device cannot report is learnt at the first reading; power falls back to the average."""
    answer = server.run(
        """
        import pynvml
        backend.open(0)
        powers = [backend.read(SECOND + n)[0].power_w for n in range(5)]
        count = pynvml.nvmlLib.fake_calls
        print(json.dumps([powers, count(186), count(83)]))
        """,
        FIELD="186=3",
    )
    assert answer == [[200.0] * 5, 2, 10]  # two boards


def test_without_field_values_the_older_calls_serve(server):
    """A driver without nvmlDeviceGetFieldValues, memory info v2 and the new temperature call is read through the old ones."""
    answer = server.run(READ, OLD=1, FAIL="nvmlDeviceGetFieldValues=13")
    reading = answer["readings"][0]
    assert reading["power_w"] == 150.0
    assert reading["energy_j"] == 7.0
    assert reading["memory_used_bytes"] == 3 << 30
    assert reading["temperature_c"] == 62.0


@pytest.mark.parametrize("code", [15, 16])
def test_a_lost_gpu_is_lost_alone(server, code):
    """GPU_IS_LOST and RESET_REQUIRED on one board: it is marked, the other goes on, and it is still listed when listed again."""
    answer = server.run(
        f"""
        backend.open(0)
        before = [r.is_lost for r in backend.read(SECOND)]
        fake(FAIL="*@1={code}")
        during = [r.is_lost for r in backend.read(2 * SECOND)]
        backend.close()
        again = [d.index for d in backend.open(0)]
        still = [r.is_lost for r in backend.read(4 * SECOND)]
        fake(FAIL="")
        backend.close()
        backend.open(0)
        after = [r.is_lost for r in backend.read(6 * SECOND)]
        print(json.dumps([before, during, again, still, after]))
        """,
    )
    assert answer == [[False, False], [False, True], ["0", "1"], [False, True], [False, False]]


def test_a_changed_layout_asks_to_be_opened_again(server):
    """MIG slices that appear, and a board that appears."""
    answer = server.run(
        """
        def changed(at):
            try:
                backend.read(at * SECOND)
                return False
            except LayoutChangedError:
                return True
        results = []
        backend.open(0)
        results.append(changed(1))
        fake(MIG=1)
        results.append(changed(2))
        results.append(len(backend.open(0)))
        fake(SLICES=1)
        results.append(changed(4))
        results.append(len(backend.open(0)))
        fake(COUNT=3)
        results.append(changed(6))
        print(json.dumps(results))
        """,
    )
    assert answer == [False, True, 4, True, 3, True]


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        ({"FAIL": "nvmlInitWithFlags=9"}, "no_driver"),
        ({"FAIL": "nvmlInitWithFlags=18"}, "driver_mismatch"),
        ({"FAIL": "nvmlInitWithFlags=4"}, "no_permission"),
        ({"FAIL": "nvmlInitWithFlags=999"}, "error"),
        ({"FAIL": "nvmlDeviceGetCount_v2=1"}, "no_driver"),
        ({"COUNT": "0"}, "no_device"),
    ],
)
def test_failures_to_begin_have_a_reason(server, faults, reason):
    """Each is unavailability with a constant word, never another exception."""
    assert server.run(OPEN_FAILS, **faults)[0] == reason


def test_no_library_is_a_reason(tmp_path):
    """No libnvidia-ml.so.1 at all: the usual machine without a GPU."""
    pytest.importorskip("pynvml", reason="the extra `gpu` (nvidia-ml-py) is not installed")
    server = Server(tmp_path, tmp_path)
    try:
        reason, message = server.run(OPEN_FAILS)
    finally:
        server.close()
    assert reason in {"no_library", "no_driver", "no_device"}  # the latter two where a driver is installed
    assert message


def test_no_python_package_is_a_reason(server):
    """The extra is not installed, or something else named pynvml fails to import."""
    answer = server.run("import sys\nsys.modules['pynvml'] = None\n" + OPEN_FAILS)
    assert answer[0] == "no_module"


@pytest.mark.parametrize(("code", "reason"), [(1, "no_driver"), (9, "no_driver"), (18, "driver_mismatch")])
def test_a_driver_that_goes_away_is_unavailable(server, code, reason):
    """The whole driver unloads or is replaced while we read."""
    answer = server.run(
        f"""
        backend.open(0)
        backend.read(SECOND)
        fake(FAIL="nvmlDeviceGetFieldValues={code}")
        try:
            backend.read(SECOND + 1)
        except BackendUnavailableError as error:
            print(json.dumps(error.reason))
        """,
    )
    assert answer == reason


def test_processes_are_those_the_driver_and_proc_agree_on(server):
    """Pids are counted as the driver gives them; only those in our /proc are described."""
    answer = server.run(READ, PIDS=f"{os.getpid()},4000000000"[:40])
    assert answer["readings"][0]["process_count"] == 2
    assert answer["pids"][0] == [os.getpid()]


def test_every_error_code_on_every_call_is_survived(server):
    """Whatever one call returns, reading yields readings or unavailability, and nothing else is raised."""
    answer = server.run(
        """
        calls = [name for name in open("tests/unit/collector/helpers/gpu/nvml_stand_in.c").read().split() if name.startswith("nvml")]
        calls = sorted({name.partition("(")[0] for name in calls if "(" in name} - {"nvmlErrorString"})
        outcomes = {}
        for call in calls:
            for code in (*range(1, 31), 999):
                fake(FAIL="")
                backend = NvmlBackend()
                try:
                    devices = backend.open(0)
                    backend.read(SECOND)
                    fake(FAIL=f"{call}={code}")
                    readings = backend.read(2 * SECOND)
                    outcome = "read" if len(readings) == len(devices) else "wrong"
                except BackendUnavailableError as error:
                    outcome = "unavailable"
                except LayoutChangedError:
                    outcome = "layout"
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
                backend.close()
                fake(FAIL=f"{call}={code}")
                try:
                    NvmlBackend().open(0)
                except BackendUnavailableError:
                    pass
        print(json.dumps([len(calls), outcomes]))
        """,
        MIG=1,
    )
    calls, outcomes = answer
    assert calls > 15
    assert "wrong" not in outcomes
    assert outcomes["read"] > outcomes["unavailable"] > 0


@pytest.mark.parametrize("call", ["nvmlInitWithFlags", "nvmlDeviceGetFieldValues", "nvmlDeviceGetComputeRunningProcesses_v3"])
def test_a_call_that_never_returns_costs_its_thread_alone(server, call):
    """The sampler says `hung`, warns once and goes on."""
    answer = server.run(
        f"""
        from collector.helpers.gpu import GpuSourceConfig, Sampler
        from collector.helpers.gpu.sampler import ThreadCaller
        from collector.testing import RecordingLog

        class Impatient(ThreadCaller):
            def call(self, function, timeout_s):
                return super().call(function, 0.3)

        now, log = [0.0], RecordingLog()
        sampler = Sampler(NvmlBackend, GpuSourceConfig(), log, caller=Impatient(),
            time_unix_nano=lambda: int((1000 + now[0]) * SECOND), monotonic_s=lambda: now[0])
        fake(HANG="{call}")
        states = []
        for _ in range(2):
            sampler.step()
            states.append(sampler.snapshot.reason)
            now[0] += 60
        fake(HANG="")
        sampler.step()
        states.append(sampler.snapshot.reason)
        print(json.dumps([states, len(log.of_level("warning"))]))
        """
    )
    assert answer == [["hung", "hung", "ok"], 1]
