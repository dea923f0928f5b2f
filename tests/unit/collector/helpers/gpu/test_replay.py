"""Recordings: written, read back, played now, looped; files that are none."""

import math

import pytest

from collector.helpers.gpu import BackendUnavailableError, ReplayConfig, SimulatedConfig, record
from collector.helpers.gpu.replay import ReplayBackend
from collector.helpers.gpu.simulated import SimulatedBackend

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

    record(SimulatedBackend(SimulatedConfig(gpus=2)), path, sample_count=50, interval_s=0.1, time_unix_nano=time_unix_nano, sleep=sleep)
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
    """The energy counter never falls."""
    backend, _ = play(recording)
    energies = [backend.read(10 * NOW + n * STEP)[0].energy_j for n in range(170)]
    assert energies == sorted(energies)


def test_without_loop_it_ends(recording):
    """Played to its end: unavailable, with its own reason."""
    backend, _ = play(recording, loop=False)
    with pytest.raises(BackendUnavailableError) as caught:
        backend.read(10 * NOW + 60 * STEP)
    assert caught.value.reason == "replay_ended"


HEADER = '{"tailrace_gpu_recording": 1, "devices": [{"id": "GPU-x", "index": "0"}]}\n'
SAMPLE = '{"time_unix_nano": 5, "readings": [{"utilization": 0.5}]}\n'


def test_what_is_not_recorded_is_absent(tmp_path):
    """A reading holds only what is known."""
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
        (HEADER + '{"time_unix_nano": 5, "readings": [{"throttle_s": [1]}]}\n', 2),
    ],
)
def test_a_file_that_is_no_recording_says_where(tmp_path, text, line):
    """Unavailable, with file and line; never another exception."""
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(BackendUnavailableError) as caught:
        play(path)
    assert caught.value.reason == "replay_file"
    assert f"bad.jsonl:{line}:" in str(caught.value)


def test_a_missing_file_is_unavailability(tmp_path):
    """It may be there at the next probe."""
    with pytest.raises(BackendUnavailableError, match="cannot be read"):
        play(tmp_path / "none.jsonl")
