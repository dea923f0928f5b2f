"""What /proc tells about a process, with a fake /proc and with the real one."""

import os

import pytest

from collector.gpu.processes import ProcessTable

CONTAINER = "ab" * 32
POD = "0f3b1c9e-2d4a-4c77-9b3e-1234567890ab"


def make_process(proc, pid, *, start=500, command="python", cgroup="0::/", nspid=""):
    folder = proc / str(pid)
    folder.mkdir(exist_ok=True)
    (folder / "stat").write_text(f"{pid} ({command}) S " + " ".join(["1"] * 18) + f" {start} 7 8\n")
    (folder / "cgroup").write_text(cgroup + "\n")
    (folder / "status").write_text(f"Name:\tpython\nNSpid:\t{nspid or pid}\n")


@pytest.fixture
def proc(tmp_path):
    (tmp_path / "stat").write_text("cpu 1 2\nbtime 1700000000\n")
    return tmp_path


@pytest.mark.parametrize(
    ("cgroup", "pod"),
    [
        (f"0::/system.slice/docker-{CONTAINER}.scope", ""),
        (f"12:devices:/docker/{CONTAINER}", ""),
        (
            f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD.replace('-', '_')}.slice/cri-containerd-{CONTAINER}.scope",
            POD,
        ),
        (f"11:memory:/kubepods/besteffort/pod{POD}/{CONTAINER}", POD),
    ],
)
def test_container_and_pod_come_from_the_cgroup(proc, cgroup, pod):
    """Containers and pods of Docker, containerd and CRI-O are found with cgroup v1 and v2."""
    make_process(proc, 42, cgroup=cgroup, nspid="42\t7")
    found = ProcessTable(proc).look_up([42])[42]
    assert (found.container_id, found.pod_uid, found.namespace_pid) == (CONTAINER, pod, 7)
    assert found.start_time_unix_nano == 1_700_000_005_000_000_000


def test_a_command_may_hold_anything(proc):
    """Parentheses and spaces in the command do not affect the start time."""
    make_process(proc, 42, command="a) S 9 9 (b", start=700)
    assert ProcessTable(proc).look_up([42])[42].start_time_unix_nano == 1_700_000_007_000_000_000


def test_a_pid_that_is_used_again_is_another_process(proc):
    """A new start time means a new process; what was known of the old one is forgotten."""
    table = ProcessTable(proc)
    make_process(proc, 42, cgroup=f"0::/docker/{CONTAINER}")
    assert table.look_up([42])[42].container_id == CONTAINER
    make_process(proc, 42, start=900)
    assert table.look_up([42])[42].container_id == ""


def test_a_process_that_is_gone_is_left_out(proc):
    """A process that has ended, or that our /proc does not show, is left out."""
    assert ProcessTable(proc).look_up([42, 4_000_000_000]) == {}


def test_this_process_is_found():
    """Our own process is found in the real /proc."""
    found = ProcessTable().look_up([os.getpid()])[os.getpid()]
    assert found.start_time_unix_nano > 0
