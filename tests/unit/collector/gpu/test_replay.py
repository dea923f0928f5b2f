"""Recordings are written, read back, played and looped; invalid files are refused."""

import math
import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from collector.gpu import BackendUnavailableError, ReplayConfig, SimulatedConfig, record
from collector.gpu.__main__ import main
from collector.gpu.nvml import NvmlBackend
from collector.gpu.replay import ReplayBackend
from collector.gpu.simulated import SimulatedBackend

NOW = 1_770_000_000_000_000_000
STEP = 100_000_000


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "gpus.jsonl"
    clock = iter(range(NOW, NOW + 1000 * STEP, STEP))
    now = NOW

    def time_unix_nano():
        return now

    def sleep(seconds):
        nonlocal now
        now = next(clock) + STEP

    record(
        SimulatedBackend(SimulatedConfig(gpus=2)),
        path,
        sample_count=50,
        interval_s=0.1,
        time_unix_nano=time_unix_nano,
        sleep=sleep,
    )
    return path


def play(path, **options):
    backend = ReplayBackend(ReplayConfig(file=str(path), **options))
    return backend, backend.open(10 * NOW)


def test_a_recording_plays_as_it_was(recording):
    """Devices and readings are those of the recorded backend, from the moment it is opened."""
    backend, devices = play(recording)
    original = SimulatedBackend(SimulatedConfig(gpus=2))
    assert devices == original.open(NOW)
    assert backend.read(10 * NOW) == original.read(NOW)
    assert backend.read(10 * NOW + 10 * STEP + STEP // 2) == original.read(NOW + 10 * STEP)


def test_a_loop_goes_on_counting(recording):
    """When a recording starts over, counters such as energy do not fall."""
    backend, _ = play(recording)
    energies = [backend.read(10 * NOW + n * STEP)[0].energy_j for n in range(170)]
    assert energies == sorted(energies)


def test_without_loop_it_ends(recording):
    """A recording that has ended makes the GPU unavailable, with a reason of its own."""
    backend, _ = play(recording, loop=False)
    with pytest.raises(BackendUnavailableError) as caught:
        backend.read(10 * NOW + 60 * STEP)
    assert caught.value.reason == "replay_ended"


HEADER = '{"tailrace_gpu_recording": 1, "devices": [{"id": "GPU-x", "index": "0"}]}\n'
SAMPLE = '{"time_unix_nano": 5, "readings": [{"utilization": 0.5}]}\n'


def test_what_is_not_recorded_is_absent(tmp_path):
    """A recorded reading contains only known values."""
    path = tmp_path / "one.jsonl"
    path.write_text(HEADER + SAMPLE)
    backend, devices = play(path)
    assert math.isnan(devices[0].memory_limit_bytes)
    reading = backend.read(10 * NOW)[0]
    assert reading.utilization == 0.5
    assert math.isnan(reading.power_w)
    assert all(math.isnan(seconds) for seconds in reading.throttle_s)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("no json\n", 1),
        ("[]\n", 1),
        ('{"tailrace_gpu_recording": 2, "devices": []}\n', 1),
        ('{"tailrace_gpu_recording": 1, "devices": []}\n' + SAMPLE, 1),
        ('{"tailrace_gpu_recording": 1, "devices": [{"id": 7, "index": "0"}]}\n' + SAMPLE, 1),
        ('{"tailrace_gpu_recording": 1, "devices": ["GPU-x"]}\n' + SAMPLE, 1),
        (HEADER, 1),
        (HEADER + SAMPLE + "{\n", 3),
        (HEADER + SAMPLE + SAMPLE, 3),
        (HEADER + '{"time_unix_nano": 5, "readings": []}\n', 2),
        (HEADER + '{"time_unix_nano": 5, "readings": [{"power_w": "much"}]}\n', 2),
        (HEADER + '{"time_unix_nano": 5, "readings": [7]}\n', 2),
        (HEADER + '{"time_unix_nano": 5, "readings": [{"process_count": -1}]}\n', 2),
        (HEADER + '{"time_unix_nano": 5, "readings": [{"process_count": "two"}]}\n', 2),
        (HEADER + '{"time_unix_nano": "5", "readings": [{}]}\n', 2),
        (HEADER + '{"time_unix_nano": -7, "readings": [{}]}\n', 2),
        (HEADER + "7\n", 2),
        (HEADER + '{"time_unix_nano": 5, "readings": [{"power_w": 1e999}]}\n', 2),
        (HEADER + '{"time_unix_nano": 5, "readings": [{"throttle_s": [1]}]}\n', 2),
    ],
)
def test_a_file_that_is_no_recording_says_where(tmp_path, text, line):
    """An invalid file makes the GPU unavailable, with file and line in the message; no other exception is raised."""
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(BackendUnavailableError) as caught:
        play(path)
    assert caught.value.reason == "replay_file"
    assert f"bad.jsonl:{line}:" in str(caught.value)


def test_a_missing_file_is_unavailability(tmp_path):
    """A missing file makes the GPU unavailable; it may exist at the next probe."""
    with pytest.raises(BackendUnavailableError, match="cannot read the recording"):
        play(tmp_path / "none.jsonl")


MIG = "GPU-a/Model A/80;GPU-b/Model B/80/mig,MIG-x:10,,MIG-y:20"


def test_what_the_driver_said_plays_again(nvml, tmp_path):
    """What is recorded through nvidia-ml-py is played back equally, including lost boards, slices and sentinels."""
    nvml.set(boards=MIG, **{"energy@0": 9223372036854775794, "pids@0": f"{os.getpid()},2"})
    path, now, original = tmp_path / "node.jsonl", NOW, []

    class Remembering(NvmlBackend):
        def read(self, at):
            original.append(super().read(at))
            return original[-1]

    def sleep(seconds):
        nonlocal now
        now += STEP
        nvml.set(power=1000 * len(original), fail="*@1=15" if len(original) > 6 else "")

    backend = Remembering()
    record(backend, path, sample_count=10, interval_s=0.1, time_unix_nano=lambda: now, sleep=sleep)
    played, devices = play(path)
    nvml.set(fail="")
    assert devices == NvmlBackend().open(0)
    assert [device.index for device in devices] == ["0", "1", "1:0", "1:2"]
    for number, readings in enumerate(original[:-1]):  # at the last one the recording starts over
        again = played.read(10 * NOW + number * STEP)
        assert [repr(reading) for reading in again] == [repr(without_processes(reading)) for reading in readings]
    assert played.read(10 * NOW + 8 * STEP)[1].is_lost
    assert played.read(10 * NOW)[0].process_count == 2


def without_processes(reading):
    return type(reading)(**{name: getattr(reading, name) for name in reading.__slots__ if name != "processes"})


def test_recordings_of_version_1_play(tmp_path):
    """The committed file was written by an earlier release and must remain playable."""
    backend, devices = play(Path(__file__).parents[4] / "tests/data/gpu_recording_v1.jsonl")
    assert [(d.id, d.model, d.is_partitioned, d.parent_id) for d in devices] == [
        ("GPU-a", "NVIDIA Stand-in", True, ""), ("MIG-x", "NVIDIA Stand-in MIG 10g", False, "GPU-a"),
    ]  # fmt: skip
    board, part = backend.read(10 * NOW)
    assert (board.power_w, board.energy_j, board.throttle_s[0], part.memory_used_bytes) == (250.0, 5.0, 74.0, 1 << 30)
    assert math.isnan(board.utilization)
    assert [backend.read(10 * NOW + n * STEP)[0].is_lost for n in range(5)] == [False, False, True, False, False]


def test_the_recorder_is_a_command(tmp_path):
    """The command writes a file that can be played; without a GPU it reports the reason."""
    path = tmp_path / "sim.jsonl"
    done = CliRunner().invoke(main, [str(path), "--backend", "simulated", "--seconds", "0.1", "--interval", "0.05"])
    assert done.exit_code == 0, done.output
    assert play(path)[1][0].model == "Simulated GPU"


def test_the_recorder_says_what_is_missing(tmp_path, monkeypatch):
    """A missing package, driver or folder is reported in a sentence, without a traceback."""
    done = CliRunner().invoke(main, [str(tmp_path / "none" / "x.jsonl"), "--backend", "simulated"])
    assert (done.exit_code, "No such file" in done.output) == (1, True)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    done = CliRunner().invoke(main, [str(tmp_path / "x.jsonl")])
    assert done.exit_code == 1
    assert "nvidia-ml-py" in done.output
