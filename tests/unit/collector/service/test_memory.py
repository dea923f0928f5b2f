"""How much memory is available: in the machine, the container, and the cgroup."""

import psutil
import pytest

from collector.service.memory import available_bytes

TOTAL = psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, TOTAL),
        ({"sys/fs/cgroup/memory.max": "max\n"}, TOTAL),
        ({"sys/fs/cgroup/memory.max": "1048576\n"}, 1048576),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, TOTAL),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "2097152\n"}, 2097152),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/memory.max": "max\n",
                "sys/fs/cgroup/a/memory.max": "4096\n",
            },
            4096,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu:/x\n4:memory:/docker/1\n",
                "sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": "8192\n",
            },
            8192,
        ),
        (  # v1: a pod's limit above that of its container
            {
                "proc/self/cgroup": "4:cpu,memory:/kubepods/pod1/c1\n0::/\n",
                "sys/fs/cgroup/memory/kubepods/pod1/c1/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/kubepods/pod1/memory.limit_in_bytes": "16384\n",
            },
            16384,
        ),
        (  # v2 with a namespace of its own: the container sees its limit at the root
            {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "32768\n"},
            32768,
        ),
        ({"sys/fs/cgroup/memory.max": "junk"}, TOTAL),
    ],
)
def test_lowest_limit_counts(tmp_path, files, expected):
    """The lowest limit applies: that of the machine, the container, or any cgroup above this process."""
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert available_bytes(tmp_path) == expected


def test_real_machine():
    """The amount found on this machine is plausible."""
    assert 1024 * 1024 < available_bytes() <= TOTAL
