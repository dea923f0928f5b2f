"""The nvml backend, through the real nvidia-ml-py, over a C stand-in for the driver's library.

The rules are those of docs/reference/gpu.md.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from collector.gpu.backend import BackendUnavailableError, LayoutChangedError
from collector.gpu.nvml import NvmlBackend
from collector.gpu.processes import ProcessTable

ROOT = Path(__file__).parents[5]
SECOND = 1_000_000_000
GIB = 1 << 30
MIG = "GPU-a/Model A/80;GPU-b/Model B/80/mig,MIG-x:10,,MIG-y:20"
CODES = [*range(1, 31), 999]


def known(reading):
    """The known quantities of a reading."""
    names = set(reading.__slots__) - {"processes", "process_count", "throttle_s", "is_lost"}
    found = {name: getattr(reading, name) for name in names if not math.isnan(getattr(reading, name))}
    return found | {
        f"throttle_{n}": round(value) for n, value in enumerate(reading.throttle_s) if not math.isnan(value)
    }


def opened():
    backend = NvmlBackend()
    return backend, backend.open(0)


def read(backend, at=1):
    return backend.read(at * SECOND)


def is_changed(backend, at):
    try:
        read(backend, at)
    except LayoutChangedError:
        return True
    return False


def why_unavailable(call):
    with pytest.raises(BackendUnavailableError) as caught:
        call()
    assert str(caught.value)
    return caught.value.reason


HEALTHY = {
    "utilization": 0.4, "memory_used_bytes": 2 * GIB, "power_w": 250.0, "energy_j": 5.0, "temperature_c": 61.0,
    "encoder_utilization": 0.05, "decoder_utilization": 0.06, "errors_corrected": 3.0, "errors_uncorrected": 1.0,
    "pcie_transmit_bytes": 197_000.0, "pcie_receive_bytes": 198_000.0,
    "throttle_0": 74, "throttle_1": 75, "throttle_2": 269, "throttle_3": 270, "throttle_4": 271,
}  # fmt: skip
UNDER_MIG = {
    name: HEALTHY[name] for name in HEALTHY.keys() - {"utilization", "encoder_utilization", "decoder_utilization"}
}
# What the older calls return on drivers without the newer ones.
FALLBACK = {
    "power_w": {200.0, 150.0},
    "energy_j": {7.0},
    "temperature_c": {62.0},
    "memory_used_bytes": {3 * GIB, 2 * GIB},
}


def test_boards_are_described_and_read(nvml):
    """Ids and all quantities arrive, in our units; memory in use is not the utilisation of the memory controller."""
    backend, devices = opened()
    first, second = devices
    assert first.id == "GPU-00000000-0000-0000-0000-000000000000"
    assert (first.index, first.model, first.serial, first.driver_version) == (
        "0",
        "NVIDIA Stand-in",
        "SN0",
        "580.65.06",
    )
    assert first.memory_limit_bytes == 80 * GIB
    assert second.id.endswith("1")
    for reading in read(backend):
        assert known(reading) == pytest.approx(HEALTHY)
        assert reading.process_count == 0
    backend.close()
    assert nvml.calls("nvmlShutdown") == 1


def test_many_boards(nvml):
    """Eight GPUs of two models each report their own figures."""
    nvml.set(
        boards=";".join(f"GPU-{n}/Model {n % 2}/{80 + n}" for n in range(8)),
        **{f"power@{n}": 1000 * n for n in range(8)},
    )
    backend, devices = opened()
    assert [(device.id, device.model, device.memory_limit_bytes) for device in devices] == [
        (f"GPU-{n}", f"Model {n % 2}", (80 + n) * GIB) for n in range(8)
    ]
    assert [reading.power_w for reading in read(backend)] == list(range(8))


def test_mig_slices_have_memory_and_boards_have_power(nvml):
    """Under MIG memory and id are the slice's, power and energy the board's; utilisation is absent (rule 10)."""
    nvml.set(boards=MIG)
    backend, devices = opened()
    assert [(d.index, d.id, d.parent_id, d.is_partitioned) for d in devices] == [
        ("0", "GPU-a", "", False), ("1", "GPU-b", "", True), ("1:0", "MIG-x", "GPU-b", False),
        ("1:2", "MIG-y", "GPU-b", False),
    ]  # fmt: skip
    assert [device.memory_limit_bytes / GIB for device in devices] == [80, 80, 10, 20]
    assert devices[2].model == "Model B MIG 10g"
    _, board, *slices = read(backend)
    assert known(board) == pytest.approx(UNDER_MIG)
    for part in slices:
        assert known(part) == {"memory_used_bytes": 1 * GIB}


SENTINELS = {
    "NVML_VALUE_NOT_AVAILABLE": 2**64 - 1, "DCGM's 64-bit blank": 9223372036854775794,
    "DCGM's other blanks": 0x7FFFFFFFFFFFFFF0,
}  # fmt: skip


@pytest.mark.parametrize("blank", SENTINELS.values(), ids=SENTINELS)
def test_sentinels_are_filtered(nvml, blank):
    """A value that means "not available" is absent, for every quantity and also from the older calls (rule 9)."""
    numbers = ("energy", "energy_total", "throttle", "pcie", "corrected", "uncorrected", "used")
    nvml.set(**dict.fromkeys(numbers, blank))
    backend, _ = opened()
    expected = {"utilization", "power_w", "temperature_c", "encoder_utilization", "decoder_utilization"}
    assert {name: HEALTHY[name] for name in expected} == pytest.approx(known(read(backend)[0]))


@pytest.mark.parametrize("blank", [2**32 - 1, 0x7FFFFFF0, 0x7FFFFFFF, 50_000_000, 4_000_000_000])
def test_sentinels_of_power_are_filtered(nvml, blank):
    """32-bit blanks, and powers that no board can draw, are absent (rule 9)."""
    nvml.set(power=blank, power_average=blank, power_usage=blank)
    assert math.isnan(read(opened()[0])[0].power_w)


@pytest.mark.parametrize("garbage", [101, 2**32 - 1, 2**31])
def test_garbage_above_100_per_cent_is_absent(nvml, garbage):
    """Utilisations above 100 %, which have been seen, are absent (rule 9)."""
    nvml.set(utilization=garbage, encoder=garbage, decoder=garbage)
    assert known(read(opened()[0])[0]).keys().isdisjoint({"utilization", "encoder_utilization", "decoder_utilization"})


def test_a_temperature_no_board_has_is_absent(nvml):
    """A temperature that no board can have is absent (rule 9)."""
    nvml.set(temperature=2**31 - 1)
    assert math.isnan(read(opened()[0])[0].temperature_c)


@pytest.mark.parametrize("kind", [7, 9, 255])
def test_a_value_of_an_unknown_type_is_absent(nvml, kind):
    """With an unknown nvmlValueType_t of a newer driver, nothing is read from the union."""
    nvml.set(type=f"83={kind},186={kind}", fail="nvmlDeviceGetTotalEnergyConsumption=3")
    reading = read(opened()[0])[0]
    assert math.isnan(reading.energy_j)
    assert reading.power_w == 200.0


def test_capabilities_are_learnt_once_a_device(nvml):
    """What one device cannot report is not queried again on it, but is on the others."""
    nvml.set(
        field="186=3",
        fail="nvmlDeviceGetUtilizationRates@0=3,nvmlDeviceGetEncoderUtilization=3,nvmlDeviceGetTotalEccErrors@1=4",
    )
    backend, _ = opened()
    for n in range(5):
        first, second = read(backend, 2 * n + 1)
        assert first.power_w == second.power_w == 200.0
        assert (math.isnan(first.utilization), second.utilization) == (True, 0.4)
        assert (first.errors_corrected, math.isnan(second.errors_corrected)) == (3.0, True)
    assert (nvml.field_calls(186), nvml.field_calls(83)) == (2, 10)
    assert nvml.calls("nvmlDeviceGetUtilizationRates") == 1 + 5
    assert nvml.calls("nvmlDeviceGetEncoderUtilization") == 2
    assert nvml.calls("nvmlDeviceGetPowerUsage") == 0


@pytest.mark.parametrize("code", [6, 10, 17, 20, 21, 27, 999])
def test_what_fails_for_now_is_asked_again(nvml, code):
    """After NOT_FOUND, TIMEOUT, NO_DATA or UNKNOWN a quantity is absent until the driver answers again."""
    nvml.set(fail=f"nvmlDeviceGetUtilizationRates={code}", field=f"197={code}")
    backend, _ = opened()
    reading = read(backend)[0]
    assert math.isnan(reading.utilization)
    assert math.isnan(reading.pcie_transmit_bytes)
    nvml.set(fail="", field="")
    assert known(read(backend, 3)[0]) == pytest.approx(HEALTHY)


def test_without_field_values_the_older_calls_serve(nvml):
    """A driver may lack nvmlDeviceGetFieldValues, memory info v2 and the new temperature call."""
    missing = ("nvmlDeviceGetFieldValues", "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetTemperatureV")
    nvml.set(fail=",".join(f"{name}=13" for name in missing))
    reading = read(opened()[0])[0]
    assert (reading.power_w, reading.energy_j, reading.temperature_c, reading.memory_used_bytes) == (
        150.0,
        7.0,
        62.0,
        3 * GIB,
    )


@pytest.mark.parametrize("code", [15, 16])
def test_a_lost_board_is_lost_and_the_others_go_on(nvml, code):
    """A board that is lost or needs a reset is lost with its slices, and returns after the library is restarted."""
    nvml.set(boards=MIG)
    backend, devices = opened()
    read(backend)
    nvml.set(fail=f"*@1={code}")
    for at in (1.1, 3, 5):
        assert [reading.is_lost for reading in read(backend, at)] == [False, True, True, True]
    backend.close()
    again = backend.open(6 * SECOND)
    assert [device.id for device in again] == ["GPU-a", "GPU-b"]  # its slices cannot be listed while it is lost
    assert [reading.is_lost for reading in read(backend, 7)] == [False, True]
    nvml.set(fail="")
    backend.close()
    assert backend.open(8 * SECOND) == devices
    assert not any(reading.is_lost for reading in read(backend, 9))


def test_a_board_lost_before_we_look_hides_no_other(nvml):
    """Nothing is known of such a board, not even its id; the others are read again and again."""
    nvml.set(fail="*@0=15")
    backend, devices = opened()
    assert [device.index for device in devices] == ["1"]
    for at in range(1, 6):
        assert known(read(backend, at)[0]) == pytest.approx(HEALTHY)


def test_the_layout_is_looked_at_again_when_it_changes(nvml):
    """Slices may appear and vanish, MIG mode may be switched, boards may be added or exchanged (rule 7)."""
    backend, _ = opened()
    found = []
    for at, boards in enumerate(
        [
            "GPU-a/A/80;GPU-b/B/80/mig,MIG-x:10,MIG-y:20",
            "GPU-a/A/80;GPU-b/B/80/mig,,MIG-y:20",
            "GPU-a/A/80;GPU-b/B/80/mig,MIG-z:10,MIG-y:20",
            "GPU-a/A/80;GPU-b/B/80",
            "GPU-a/A/80;GPU-b/B/80;GPU-c/C/80",
            "GPU-a/A/80",
            "GPU-d/D/80",  # exchanged at run time
        ]
    ):
        nvml.set(boards=boards)
        assert is_changed(backend, 2 * at + 1), boards
        found.append([device.id for device in backend.open(0)])
        assert not is_changed(backend, 2 * at + 2)
    assert found == [
        ["GPU-a", "GPU-b", "MIG-x", "MIG-y"], ["GPU-a", "GPU-b", "MIG-y"], ["GPU-a", "GPU-b", "MIG-z", "MIG-y"],
        ["GPU-a", "GPU-b"],
        ["GPU-a", "GPU-b", "GPU-c"], ["GPU-a"], ["GPU-d"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"fail": "nvmlInitWithFlags=9"}, "no_driver"),
        ({"fail": "nvmlInitWithFlags=18"}, "driver_mismatch"),
        ({"fail": "nvmlInitWithFlags=4"}, "no_permission"),
        ({"fail": "nvmlInitWithFlags=13"}, "no_library"),
        ({"fail": "nvmlInitWithFlags=999"}, "error"),
        ({"fail": "nvmlDeviceGetCount_v2=1"}, "no_driver"),
        ({"fail": "*@0=15,*@1=15"}, "no_device"),
        ({"boards": ""}, "no_device"),
    ],
)
def test_failures_to_begin_have_a_reason(nvml, settings, reason):
    """Each error means that the GPU is unavailable, with a constant word; no other exception is raised."""
    nvml.set(**settings)
    assert why_unavailable(lambda: NvmlBackend().open(0)) == reason


def test_no_python_package_is_a_reason(monkeypatch):
    """The extra may be missing, or something else with the name pynvml may fail to import."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert why_unavailable(lambda: NvmlBackend().open(0)) == "no_module"


LOADS = """
import json
from collector.gpu.backend import BackendUnavailableError
from collector.gpu.nvml import NvmlBackend
try:
    found = [device.id for device in NvmlBackend().open(0)]
except BackendUnavailableError as error:
    found = error.reason
print(json.dumps(found))
"""


def in_a_process(library, **env):
    env = {**os.environ, "LD_LIBRARY_PATH": str(library), "PYTHONPATH": str(ROOT), **env}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOADS], env=env, cwd=ROOT, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_nvidia_ml_pys_own_loader_finds_the_library(nvml_library):
    """The library is found by its name, as on a machine with a driver."""
    assert in_a_process(nvml_library, STAND_IN_boards="GPU-env/E/8") == ["GPU-env"]


def test_no_library_is_a_reason(tmp_path):
    """The usual machine without a GPU has no libnvidia-ml.so.1 at all."""
    pytest.importorskip("pynvml", reason="the extra `gpu` (nvidia-ml-py) is not installed")
    found = in_a_process(tmp_path)
    assert found in ("no_library", "no_driver", "no_device") or isinstance(found, list)  # where a driver is installed


@pytest.mark.parametrize(("code", "reason"), [(1, "no_driver"), (9, "no_driver"), (18, "driver_mismatch")])
def test_a_driver_that_goes_away_is_unavailable(nvml, code, reason):
    """The driver may be unloaded or replaced during a reading, at any call and any field."""
    backend, _ = opened()
    read(backend)
    nvml.set(fail=f"nvmlDeviceGetFieldValues={code}")
    assert why_unavailable(lambda: read(backend, 1.1)) == reason
    nvml.set(fail="", field=f"*={code}")
    assert why_unavailable(lambda: read(backend, 1.2)) == reason


def test_processes_are_those_the_driver_and_proc_agree_on(nvml):
    """All pids that the driver returns are counted; only those in our /proc are described."""
    nvml.set(**{"pids@0": f"{os.getpid()},4000000000", "pids@1": "4000000000"})
    backend = NvmlBackend(ProcessTable())
    backend.open(0)
    first, second = read(backend)
    assert (first.process_count, second.process_count) == (2, 1)
    assert [process.pid for process in first.processes] == [os.getpid()]
    assert not second.processes


def test_processes_that_may_not_be_listed_are_unknown(nvml):
    """Without permission the number of processes is absent, not 0 (rule 8)."""
    nvml.set(fail="nvmlDeviceGetComputeRunningProcesses_v3=4")
    assert read(opened()[0])[0].process_count is None


FUNCTIONS = [
    "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetCount_v2", "nvmlDeviceGetDecoderUtilization",
    "nvmlDeviceGetEncoderUtilization", "nvmlDeviceGetFieldValues", "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetMigDeviceHandleByIndex",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetName", "nvmlDeviceGetSerial", "nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV",
    "nvmlDeviceGetTotalEccErrors",
    "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetUUID",
    "nvmlDeviceGetUtilizationRates",
    "nvmlInitWithFlags", "nvmlShutdown", "nvmlSystemGetDriverVersion",
]  # fmt: skip


def test_every_function_of_the_stand_in_is_tried(nvml):
    """The list of calls in this test is that of the source."""
    assert sorted(FUNCTIONS) == nvml.functions()


def allowed(name, value, expected):
    return value == pytest.approx(expected.get(name)) or value in FALLBACK.get(name, set())


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_error_code_on_every_call_is_survived(nvml, function):
    """Whatever a call returns, at any time, the reading is right or absent and nothing is raised."""
    nvml.set(boards=MIG)
    expected = {"0": HEALTHY, "1": UNDER_MIG}
    for code in CODES:
        for is_first in (False, True):
            nvml.set(fail=f"{function}={code}" if is_first else "")
            backend = NvmlBackend()
            try:
                devices = backend.open(0)
                if not is_first:
                    read(backend)
                    nvml.set(fail=f"{function}={code}")
                for at in (1.1, 2.1, 3.2):
                    readings = read(backend, at)
                    assert len(readings) == len(devices)
                    for device, reading in zip(devices, readings, strict=True):
                        whole = expected.get(device.index, {"memory_used_bytes": 1 * GIB})
                        if device.index == "1" and not device.is_partitioned:  # its mode could not be read
                            whole = UNDER_MIG
                        wrong = {
                            name: value for name, value in known(reading).items() if not allowed(name, value, whole)
                        }
                        assert not wrong, (code, device)
                        assert reading.is_lost <= (code in (15, 16, 28)), (code, device)
            except (BackendUnavailableError, LayoutChangedError):
                pass
            backend.close()


@pytest.mark.parametrize("code", CODES)
def test_every_error_code_on_every_field_is_survived(nvml, code):
    """A field that fails is absent or read through an older call, and does not affect the other fields."""
    fields = {
        83: "energy_j",
        185: "power_w",
        186: "power_w",
        74: "throttle_0",
        271: "throttle_4",
        197: "pcie_transmit_bytes",
    }
    for field, name in fields.items():
        nvml.set(field=f"{field}={code}")
        backend, _ = opened()
        try:
            readings = read(backend), read(backend, 1.1)
        except BackendUnavailableError:
            assert code in (1, 9, 12, 18)
            continue
        for reading, _ in readings:
            found = known(reading)
            if code in (15, 16):
                assert reading.is_lost
                assert not found
                continue
            assert allowed(name, found.pop(name, HEALTHY[name]), HEALTHY)
            assert found == pytest.approx({other: HEALTHY[other] for other in HEALTHY if other != name})
        backend.close()
