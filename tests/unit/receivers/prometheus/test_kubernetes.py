import pytest
from aiohttp import web

from receivers.prometheus.config import KubernetesDiscoveryConfig
from receivers.prometheus.discovery import DiscoveryError
from receivers.prometheus.kubernetes import KubernetesDiscovery, find_targets

P = "__meta_kubernetes_"
POD = {
    "metadata": {
        "name": "p", "namespace": "n", "uid": "u", "labels": {"app.x/y": "z"}, "annotations": {"a": "b"},
        "ownerReferences": [{"kind": "ReplicaSet", "name": "rs", "controller": True}],
    },
    "spec": {
        "nodeName": "node",
        "containers": [
            {"name": "c", "image": "i", "ports": [{"name": "web", "containerPort": 80, "protocol": "TCP"}]},
            {"name": "side"},
        ],
    },
    "status": {"podIP": "10.0.0.1", "hostIP": "10.1.0.1", "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
}  # fmt: skip
SERVICE = {
    "metadata": {"name": "s", "namespace": "n", "labels": {"l": "m"}},
    "spec": {"type": "ClusterIP", "clusterIP": "10.2.0.1", "ports": [{"name": "web", "port": 8080}]},
}
ENDPOINTS = {
    "metadata": {"name": "s", "namespace": "n"},
    "subsets": [
        {
            "addresses": [{"ip": "10.0.0.1", "targetRef": {"kind": "Pod", "name": "p", "namespace": "n"}}],
            "notReadyAddresses": [{"ip": "10.0.0.2"}],
            "ports": [{"name": "web", "port": 80}],
        }
    ],
}
SLICE = {
    "metadata": {"name": "s-1", "namespace": "n", "labels": {"kubernetes.io/service-name": "s"}},
    "addressType": "IPv4",
    "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}, "nodeName": "node"}],
    "ports": [{"name": "web", "port": 80}],
}
NODE = {
    "metadata": {"name": "node", "labels": {"zone": "a"}},
    "status": {
        "addresses": [{"type": "Hostname", "address": "h"}, {"type": "InternalIP", "address": "10.1.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
    },
}
OBJECTS = {"pod": [POD], "service": [SERVICE], "endpoints": [ENDPOINTS], "endpointslice": [SLICE], "node": [NODE]}


def test_pods():
    """A target for each port of each container, and one for a container without ports."""
    web_port, side = find_targets("pod", OBJECTS)
    assert (web_port["__address__"], side["__address__"]) == ("10.0.0.1:80", "10.0.0.1")
    expected = {
        "namespace": "n", "pod_name": "p", "pod_label_app_x_y": "z", "pod_labelpresent_app_x_y": "true",
        "pod_annotation_a": "b", "pod_controller_kind": "ReplicaSet", "pod_controller_name": "rs", "pod_ready": "true",
        "pod_container_name": "c", "pod_container_port_number": "80", "pod_container_port_name": "web", "pod_uid": "u",
        "pod_node_name": "node", "pod_phase": "Running", "pod_host_ip": "10.1.0.1", "pod_container_init": "false",
    }  # fmt: skip
    assert expected.items() <= {key.removeprefix(P): value for key, value in web_port.items()}.items()


def test_services():
    """The name that the cluster's DNS knows."""
    (found,) = find_targets("service", OBJECTS)
    assert (found["__address__"], found[f"{P}service_label_l"]) == ("s.n.svc:8080", "m")


@pytest.mark.parametrize(("role", "count"), [("endpoints", 2), ("endpointslice", 1)])
def test_endpoints(role, count):
    """With the labels of the service and of the pod behind them."""
    found = list(find_targets(role, OBJECTS))
    assert len(found) == count
    assert (found[0]["__address__"], found[0][f"{P}service_name"]) == ("10.0.0.1:80", "s")
    if role == "endpoints":
        assert [one[f"{P}endpoint_ready"] for one in found] == ["true", "false"]
        assert (found[0][f"{P}pod_name"], found[0][f"{P}pod_container_name"]) == ("p", "c")


def test_nodes():
    """The kubelet's port, at the internal address."""
    (found,) = find_targets("node", OBJECTS)
    assert (found["__address__"], found["instance"], found[f"{P}node_label_zone"]) == ("10.1.0.1:10250", "node", "a")


def test_objects_that_cannot_be_read_are_an_error():
    """And not the end of the search."""
    with pytest.raises(DiscoveryError):
        list(find_targets("pod", {"pod": [{"status": {"podIP": "10.0.0.1"}}]}))


async def test_asks_the_api_server_page_by_page():
    """With namespaces, selectors and the token."""
    asked = []

    async def handle(request):
        asked.append((request.path, dict(request.query), request.headers.get("Authorization")))
        if "continue" in request.query:
            return web.json_response({"items": [POD], "metadata": {}})
        return web.json_response({"items": [POD], "metadata": {"continue": "more"}})

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    config = KubernetesDiscoveryConfig.model_validate(
        {
            "role": "pod", "api_server": f"http://127.0.0.1:{runner.addresses[0][1]}/", "bearer_token": "t",
            "namespaces": {"names": ["n"]}, "selectors": [{"role": "pod", "label": "a=b"}],
        }
    )  # fmt: skip
    sut = KubernetesDiscovery(config, "agent")
    sut.open()
    try:
        assert len(await sut.find()) == 4
    finally:
        await sut.close()
        await runner.cleanup()
    path = "/api/v1/namespaces/n/pods"
    query = {"limit": "500", "labelSelector": "a=b"}
    assert asked == [(path, query, "Bearer t"), (path, {**query, "continue": "more"}, "Bearer t")]


async def test_without_a_cluster_nothing_is_found(monkeypatch):
    """The error says what to write."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    sut = KubernetesDiscovery(KubernetesDiscoveryConfig(role="pod"), "agent")
    sut.open()
    with pytest.raises(DiscoveryError, match="api_server"):
        await sut.find()
