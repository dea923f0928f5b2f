"""Which GPUs an item is attributed to, and above all which items are left alone.

The rules are those of docs/reference/gpu.md.
"""

import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.gpu import Device, Process, Reading, Snapshot
from collector.model import Context, Traces
from processors.gpu.attribution import METHODS, OTHER_HOST, Attribution
from processors.gpu.config import GpuProcessorConfig
from processors.gpu.locality import HostIdentity

A, B = Device("GPU-aaaa", "0"), Device("GPU-bbbb", "1")
HOST = HostIdentity.of({"machine-1"}, {"Node-1.example.org"})
NEAR, FAR, UNKNOWN = True, False, None
CONTAINER, POD = "ab" * 32, "0f3b1c9e-2d4a-4c77-9b3e-1234567890ab"
NOW = 1_700_000_000_000_000_000


def attribute(resource, span=None, peer=NEAR, devices=(A,), processes=None, host=HOST, start=NOW, **config):
    """(method, ids of the devices) | "other_host" | "ambiguous"."""
    message = ExportTraceServiceRequest()
    part = message.resource_spans.add()
    for attributes, values in (
        (part.resource.attributes, resource),
        (
            (
                one := part.scope_spans.add().spans.add(name="x", trace_id=bytes(15) + b"\1", span_id=bytes(7) + b"\1")
            ).attributes,
            span or {},
        ),
    ):
        for key, value in values.items():
            setattr(attributes.add(key=key).value, "int_value" if isinstance(value, int) else "string_value", value)
    assert one.name
    batch = Traces.from_wire(message.SerializeToString(), Context(local_peer=peer))
    readings = tuple(Reading(processes=(processes or {}).get(device.id, ())) for device in devices)
    snapshot = Snapshot(source="nvml", devices=tuple(devices), readings=readings)
    attribution = Attribution(GpuProcessorConfig(**config), host, snapshot)
    found = attribution.assign(batch, np.arange(1), np.array([start], np.uint64))
    target = int(found.target[0])
    if target < 0:
        return "other_host" if target == OTHER_HOST else "ambiguous"
    return METHODS[int(found.method[0])], "+".join(devices[number].id[4] for number in attribution.targets[target])


LOCAL = ("single", "a")


@pytest.mark.parametrize(
    ("resource", "peer", "expected"),
    [
        # nothing is stated: the peer decides
        ({}, NEAR, LOCAL),
        ({}, FAR, "other_host"),
        ({}, UNKNOWN, "other_host"),
        # a stated id decides, whatever the name and the peer are
        ({"host.id": "machine-1"}, FAR, LOCAL),
        ({"host.id": "MACHINE-1", "host.name": "pod-7"}, FAR, LOCAL),
        ({"host.id": "machine-2"}, NEAR, "other_host"),
        ({"host.id": "machine-2", "host.name": "node-1"}, NEAR, "other_host"),
        # else a stated name: case and domain do not matter, another domain does
        ({"host.name": "node-1.example.org"}, FAR, LOCAL),
        ({"host.name": "NODE-1"}, FAR, LOCAL),
        ({"host.name": "node-1.example.org."}, FAR, LOCAL),
        ({"host.name": "node-1.example.com"}, NEAR, "other_host"),
        ({"host.name": "node-2"}, NEAR, "other_host"),
        ({"host.name": "node-12"}, NEAR, "other_host"),
        # names that every machine has do not count
        ({"host.name": "localhost"}, NEAR, LOCAL),
        ({"host.name": "localhost"}, FAR, "other_host"),
        ({"host.name": ""}, NEAR, LOCAL),
    ],
)
def test_locality(resource, peer, expected):
    """``locality: detect`` decides by id, name and peer (rule 15)."""
    assert attribute(resource, peer=peer) == expected


@pytest.mark.parametrize(
    ("resource", "peer", "expected"),
    [
        ({}, FAR, LOCAL),
        ({}, UNKNOWN, LOCAL),
        ({"host.name": "node-1"}, FAR, LOCAL),
        ({"host.name": "node-2"}, NEAR, "other_host"),  # a stated host that differs always wins
        ({"host.id": "machine-2"}, NEAR, "other_host"),
    ],
)
def test_locality_all_takes_the_unstated(resource, peer, expected):
    """``locality: all`` is for a sidecar or a DaemonSet with node-local traffic."""
    assert attribute(resource, peer=peer, locality="all") == expected


@pytest.mark.parametrize("resource", [{}, {"host.id": "machine-1"}, {"host.name": "node-1"}])
def test_locality_none_leaves_only_what_is_explicit(resource):
    """``locality: none`` is for a gateway that has a GPU itself."""
    assert attribute(resource, locality="none") == "other_host"
    assert attribute({**resource, "gpu.uuid": "GPU-aaaa"}, locality="none") == ("explicit", "a")


def test_an_id_that_cannot_be_compared_does_not_decide():
    """If our own machine-id is unknown the name decides, and without a name no item is local."""
    nameless = HostIdentity.of(set(), {"node-1"})
    assert attribute({"host.id": "machine-9", "host.name": "node-1"}, host=nameless) == LOCAL
    assert attribute({"host.id": "machine-9"}, host=nameless) == "other_host"


@pytest.mark.parametrize(
    ("resource", "span", "expected"),
    [
        ({}, {"hw.id": "GPU-bbbb"}, ("explicit", "b")),
        ({}, {"gpu.uuid": "gpu-BBBB"}, ("explicit", "b")),
        ({"hw.id": "GPU-bbbb"}, {}, ("explicit", "b")),
        ({"gpu.uuid": "GPU-bbbb"}, {}, ("explicit", "b")),
        (
            {"gpu.uuid": "GPU-bbbb"},
            {"hw.id": "GPU-aaaa"},
            ("explicit", "a"),
        ),  # the span takes precedence over its resource
        ({"hw.id": "GPU-aaaa"}, {"gpu.uuid": "GPU-bbbb"}, ("explicit", "b")),
        ({}, {"hw.id": "GPU-bbbb, GPU-aaaa"}, ("explicit", "a+b")),
        ({}, {"hw.id": "GPU-bbbb::3"}, ("explicit", "b")),  # a share of a time-sliced GPU
        ({}, {"hw.id": "GPU-cccc"}, "other_host"),  # an unknown UUID belongs to another host
        ({}, {"hw.id": "GPU-aaaa,GPU-cccc"}, "other_host"),
        ({"gpu.uuid": "MIG-cccc"}, {}, "other_host"),
        ({}, {"hw.id": "all"}, "ambiguous"),  # these name no GPU: the next steps decide
        ({}, {"hw.id": "void"}, "ambiguous"),
        ({}, {"hw.id": "0"}, "ambiguous"),
        ({}, {"hw.id": 0}, "ambiguous"),
        ({}, {"hw.id": ""}, "ambiguous"),
        ({}, {"hw.id": "GPU-aaaa,1"}, "ambiguous"),
        ({"host.id": "machine-2", "hw.id": "GPU-aaaa"}, {}, ("explicit", "a")),  # UUIDs are unique over all hosts
    ],
)
def test_explicit(resource, span, expected):
    """``hw.id`` or ``gpu.uuid`` on the span, else on its resource, decides (rule 14)."""
    assert attribute(resource, span, devices=(A, B)) == expected


def test_a_demonstrations_devices_belong_to_its_host_alone():
    """With ``simulated.host_name`` only spans of that host count, even with a known UUID (rule 3)."""
    options = {"backend": "simulated", "simulated": {"host_name": "demo-gpu"}}
    assert attribute({"host.name": "demo-gpu"}, peer=FAR, **options) == LOCAL
    for resource in ({}, {"host.name": "node-1"}, {"host.id": "machine-1"}, {"gpu.uuid": "GPU-aaaa"}):
        assert attribute(resource, peer=NEAR, **options) == "other_host"
    assert attribute({}, {"hw.id": "GPU-aaaa"}, **options) == "other_host"
    assert attribute({}, peer=NEAR, locality="all", **options) == "other_host"
    assert attribute({"host.name": "demo-gpu"}, locality="none", **options) == "other_host"


PROCESSES = {
    "GPU-aaaa": (Process(100, 1, NOW - 10**10, CONTAINER, POD), Process(500, 500, NOW - 10**10)),
    "GPU-bbbb": (
        Process(200, 1, NOW - 10**10, "cd" * 32),
        Process(300, 9, NOW - 10**10, "ef" * 32),
        Process(500, 500, NOW - 10**10),
    ),
}


@pytest.mark.parametrize(
    ("resource", "expected"),
    [
        ({"container.id": CONTAINER}, ("container", "a")),
        ({"container.id": f"containerd://{CONTAINER.upper()}"}, ("container", "a")),
        ({"k8s.pod.uid": POD}, ("container", "a")),
        ({"container.id": "99" * 32, "process.pid": 9}, "ambiguous"),  # not one of our containers, whatever its pid is
        ({"process.pid": 9}, ("process", "b")),  # by NSpid
        ({"process.pid": 300}, "ambiguous"),  # a container does not know its host's pid
        ({"process.pid": 500}, ("process", "a+b")),
        ({"process.pid": 1}, "ambiguous"),  # two containers have this pid
        ({"process.pid": 77}, "ambiguous"),
        ({"process.pid": "9"}, "ambiguous"),
        ({"container.id": CONTAINER, "host.name": "node-2"}, "other_host"),
    ],
)
def test_container_and_process(resource, expected):
    """The cgroups and pids of processes that compute on a GPU decide (rules 16 and 17)."""
    assert attribute(resource, devices=(A, B), processes=PROCESSES) == expected


def test_a_pid_that_was_someone_elses_does_not_count():
    """A span that started before the process with its pid is not attributed to it (rule 17)."""
    early = NOW - 60 * 10**9
    assert attribute({"process.pid": 9}, devices=(A, B), processes=PROCESSES, start=early) == "ambiguous"


def test_one_slice_of_one_board_is_single():
    """Boards in MIG mode are never a target (rule 10)."""
    board = Device("GPU-mmmm", "0", is_partitioned=True)
    slices = [Device(f"MIG-{name}", f"0:{n}", parent_id="GPU-mmmm") for n, name in enumerate("xy")]
    assert attribute({}, devices=(board, slices[0])) == ("single", "x")
    assert attribute({}, devices=(board, *slices)) == "ambiguous"
    assert attribute({}, devices=(board, *slices), ambiguous="host") == ("host", "x+y")
    assert attribute({}, devices=(board,)) == "ambiguous"


def test_own_identity_is_readable():
    """Our own identity includes the host name and OTEL_RESOURCE_ATTRIBUTES."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_RESOURCE_ATTRIBUTES", "host.id=i-0abc,host.name=edge%2D7,service.name=x")
        own = HostIdentity.own()
    assert own.has_id("I-0ABC")
    assert own.has_name("edge-7.example.org")
