"""Targets in a Kubernetes cluster, by asking its API server for lists of objects.

The labels are those that Prometheus gives, so that its relabelling rules work here. Prometheus watches the API server;
we ask it every ``refresh_interval``.

Source: prometheus/prometheus discovery/kubernetes/{pod,node,service,endpoints,endpointslice}.go.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from receivers.prometheus.access import Access, AccessError
from receivers.prometheus.config import KubernetesDiscoveryConfig
from receivers.prometheus.discovery import DiscoveryError

__all__ = ["KubernetesDiscovery", "find_targets"]

_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PREFIX: Final = "__meta_kubernetes_"
_PAGE_LIMIT: Final = 500
_PAGES_MAX: Final = 2_000
_RESPONSE_MAX_BYTES: Final = 64 * 1024 * 1024
_TIMEOUT_S: Final = 30.0
_PATHS: Final = {
    "node": ("/api/v1", "nodes"),
    "pod": ("/api/v1", "pods"),
    "service": ("/api/v1", "services"),
    "endpoints": ("/api/v1", "endpoints"),
    "endpointslice": ("/apis/discovery.k8s.io/v1", "endpointslices"),
}
_NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    "endpoints": ("service", "pod"), "endpointslice": ("service", "pod")
}  # fmt: skip
_INVALID: Final = re.compile(r"[^a-zA-Z0-9_]", re.ASCII)

Object = Mapping[str, Any]
Labels = dict[str, str]


class KubernetesDiscovery:
    """Asks the API server for the objects of one role."""

    name = "kubernetes"

    def __init__(self, config: KubernetesDiscoveryConfig, user_agent: str) -> None:
        self._config, self._user_agent = config, user_agent
        self.refresh_s = config.refresh_interval
        self._access: Access | None = None
        self._server = config.api_server.rstrip("/")

    def open(self) -> None:
        """Make the client; without ``api_server`` that of the cluster that this process runs in."""
        config = self._config
        if not self._server:
            host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
            self._server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}" if host else ""
            tls = config.tls_config.model_copy(update={"ca_file": str(_ACCOUNT / "ca.crt")})
            config = config.model_copy(update={"tls_config": tls, "bearer_token_file": str(_ACCOUNT / "token")})
        if self._server:
            self._access = Access(config, self._user_agent)
            self._access.open()

    async def close(self) -> None:
        """Close the connections."""
        if self._access is not None:
            await self._access.close()

    async def find(self) -> list[Labels]:
        """See ``Discovery``."""
        role = self._config.role
        if self._access is None:
            raise DiscoveryError("not in a Kubernetes cluster: write api_server")
        objects = {name: await self._list(name) for name in (role, *_NEEDS.get(role, ()))}
        return list(find_targets(role, objects))

    async def _list(self, role: str) -> list[Object]:
        group, plural = _PATHS[role]
        found: list[Object] = []
        for namespace in self._namespaces() if role != "node" else ("",):
            path = f"{group}/namespaces/{namespace}/{plural}" if namespace else f"{group}/{plural}"
            query = {"limit": str(_PAGE_LIMIT)}
            for selector in self._config.selectors:
                if selector.role == role:
                    query.update({f"{key}Selector": getattr(selector, key) for key in ("label", "field")})
            for _ in range(_PAGES_MAX):
                url = f"{self._server}{path}?{urlencode({key: value for key, value in query.items() if value})}"
                document = await self._get(url)
                found += document.get("items") or []
                query["continue"] = (document.get("metadata") or {}).get("continue", "")
                if not query["continue"]:
                    break
        return found

    def _namespaces(self) -> tuple[str, ...]:
        names = self._config.namespaces.names
        if self._config.namespaces.own_namespace:
            try:
                names = (*names, (_ACCOUNT / "namespace").read_text("utf-8").strip())
            except OSError as error:
                raise DiscoveryError(f"the namespace of this pod is unknown: {error}") from error
        return names or ("",)

    async def _get(self, url: str) -> dict[str, Any]:
        assert self._access is not None
        try:
            answer = await self._access.get(url, {"Accept": "application/json"}, _TIMEOUT_S, _RESPONSE_MAX_BYTES)
            document = json.loads(answer.body)
        except (AccessError, ValueError) as error:
            raise DiscoveryError(f"{url.partition('?')[0]}: {error}") from error
        if not isinstance(document, dict):
            raise DiscoveryError(f"{url.partition('?')[0]}: expected a list of objects")
        return document


def find_targets(role: str, objects: Mapping[str, list[Object]]) -> Iterator[Labels]:
    """The labels of the targets of a role, from the objects of the kinds that it needs."""
    try:
        yield from {"node": _nodes, "pod": _pods, "service": _services}.get(role, _endpoints)(role, objects)
    except (AttributeError, KeyError, TypeError) as error:
        raise DiscoveryError(f"the API server sent objects that cannot be read: {error!r}") from error


def _meta(kind: str, item: Object) -> Labels:
    """Labels and annotations of an object."""
    found = {}
    for what in ("label", "annotation"):
        for key, value in (item["metadata"].get(f"{what}s") or {}).items():
            name = _INVALID.sub("_", key)
            found[f"{_PREFIX}{kind}_{what}_{name}"] = value
            found[f"{_PREFIX}{kind}_{what}present_{name}"] = "true"
    return found


def _named(item: Object, kind: str) -> Labels:
    return {
        f"{_PREFIX}namespace": item["metadata"].get("namespace", ""),
        f"{_PREFIX}{kind}_name": item["metadata"]["name"],
    }


def _join(host: str, port: object) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _nodes(_role: str, objects: Mapping[str, list[Object]]) -> Iterator[Labels]:
    for node in objects["node"]:
        addresses: dict[str, str] = {}
        for address in node.get("status", {}).get("addresses") or []:
            addresses.setdefault(address["type"], address["address"])
        kinds = ("InternalIP", "InternalDNS", "ExternalIP", "ExternalDNS", "LegacyHostIP", "Hostname")
        host = next((addresses[kind] for kind in kinds if kind in addresses), None)
        if host is None:
            continue
        port = node.get("status", {}).get("daemonEndpoints", {}).get("kubeletEndpoint", {}).get("Port", 10250)
        yield {
            "__address__": _join(host, port),
            "instance": node["metadata"]["name"],
            f"{_PREFIX}node_name": node["metadata"]["name"],
            f"{_PREFIX}node_provider_id": node.get("spec", {}).get("providerID", ""),
            **{f"{_PREFIX}node_address_{kind}": address for kind, address in addresses.items()},
            **_meta("node", node),
        }


def _pod_labels(pod: Object) -> Labels:
    status, spec = pod.get("status", {}), pod.get("spec", {})
    conditions = {one["type"]: one["status"] for one in status.get("conditions") or []}
    labels = {
        **_named(pod, "pod"),
        f"{_PREFIX}pod_ip": status.get("podIP", ""),
        f"{_PREFIX}pod_ready": conditions.get("Ready", "unknown").lower(),
        f"{_PREFIX}pod_phase": status.get("phase", ""),
        f"{_PREFIX}pod_node_name": spec.get("nodeName", ""),
        f"{_PREFIX}pod_host_ip": status.get("hostIP", ""),
        f"{_PREFIX}pod_uid": pod["metadata"].get("uid", ""),
        **_meta("pod", pod),
    }
    for owner in pod["metadata"].get("ownerReferences") or []:
        if owner.get("controller"):
            labels[f"{_PREFIX}pod_controller_kind"] = owner["kind"]
            labels[f"{_PREFIX}pod_controller_name"] = owner["name"]
    return labels


def _container_labels(pod: Object, container: Object, port: Object | None, *, is_init: bool) -> Labels:
    ids = {
        status["name"]: status.get("containerID", "")
        for key in ("containerStatuses", "initContainerStatuses")
        for status in pod.get("status", {}).get(key) or []
    }
    labels = {
        f"{_PREFIX}pod_container_name": container["name"],
        f"{_PREFIX}pod_container_id": ids.get(container["name"], ""),
        f"{_PREFIX}pod_container_image": container.get("image", ""),
        f"{_PREFIX}pod_container_init": str(is_init).lower(),
    }
    if port is not None:
        labels[f"{_PREFIX}pod_container_port_name"] = port.get("name", "")
        labels[f"{_PREFIX}pod_container_port_number"] = str(port["containerPort"])
        labels[f"{_PREFIX}pod_container_port_protocol"] = port.get("protocol", "TCP")
    return labels


def _containers(pod: Object) -> Iterator[tuple[Object, bool]]:
    spec = pod.get("spec", {})
    yield from ((container, False) for container in spec.get("containers") or [])
    yield from ((container, True) for container in spec.get("initContainers") or [])


def _pods(_role: str, objects: Mapping[str, list[Object]]) -> Iterator[Labels]:
    for pod in objects["pod"]:
        address = pod.get("status", {}).get("podIP", "")
        if not address:
            continue
        labels = _pod_labels(pod)
        for container, is_init in _containers(pod):
            ports = container.get("ports") or []
            for port in ports:
                yield {
                    **labels,
                    **_container_labels(pod, container, port, is_init=is_init),
                    "__address__": _join(address, port["containerPort"]),
                }
            if not ports:
                yield {**labels, **_container_labels(pod, container, None, is_init=is_init), "__address__": address}


def _service_labels(service: Object) -> Labels:
    return {**_named(service, "service"), **_meta("service", service)}


def _services(_role: str, objects: Mapping[str, list[Object]]) -> Iterator[Labels]:
    for service in objects["service"]:
        spec, name = service.get("spec", {}), service["metadata"]["name"]
        host = f"{name}.{service['metadata'].get('namespace', '')}.svc"
        kind = spec.get("type", "ClusterIP")
        where = (
            {f"{_PREFIX}service_external_name": spec.get("externalName", "")}
            if kind == "ExternalName"
            else {f"{_PREFIX}service_cluster_ip": spec.get("clusterIP", "")}
        )
        for port in spec.get("ports") or []:
            yield {
                **_service_labels(service),
                **where,
                f"{_PREFIX}service_type": kind,
                f"{_PREFIX}service_port_name": port.get("name", ""),
                f"{_PREFIX}service_port_number": str(port["port"]),
                f"{_PREFIX}service_port_protocol": port.get("protocol", "TCP"),
                "__address__": _join(host, port["port"]),
            }


def _endpoints(role: str, objects: Mapping[str, list[Object]]) -> Iterator[Labels]:
    pods = {_key(pod): pod for pod in objects["pod"]}
    services = {_key(service): service for service in objects["service"]}
    for item in objects[role]:
        metadata = item["metadata"]
        is_slice = role == "endpointslice"
        owner = (metadata.get("labels") or {}).get("kubernetes.io/service-name", "") if is_slice else metadata["name"]
        service = services.get((metadata.get("namespace", ""), owner))
        common = {**_named(item, role), **_meta(role, item), **(_service_labels(service) if service else {})}
        for address, port, labels in _slice_parts(item) if is_slice else _endpoint_parts(item):
            target = address.get("targetRef") or {}
            found = {**common, **labels, "__address__": _join(labels["__address__"], port.get("port", ""))}
            if target:
                found[f"{_PREFIX}{role}_address_target_kind"] = target.get("kind", "")
                found[f"{_PREFIX}{role}_address_target_name"] = target.get("name", "")
            pod = (
                pods.get((target.get("namespace", ""), target.get("name", ""))) if target.get("kind") == "Pod" else None
            )
            if pod is not None:
                found.update(_pod_labels(pod))
                for container, is_init in _containers(pod):
                    for own in container.get("ports") or []:
                        if own["containerPort"] == port.get("port"):
                            found.update(_container_labels(pod, container, own, is_init=is_init))
            yield found


def _key(item: Object) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _endpoint_parts(item: Object) -> Iterator[tuple[Object, Object, Labels]]:
    for subset in item.get("subsets") or []:
        for port in subset.get("ports") or []:
            for key, ready in (("addresses", "true"), ("notReadyAddresses", "false")):
                for address in subset.get(key) or []:
                    yield (
                        address,
                        port,
                        {
                            "__address__": address["ip"],
                            f"{_PREFIX}endpoint_port_name": port.get("name", ""),
                            f"{_PREFIX}endpoint_port_protocol": port.get("protocol", "TCP"),
                            f"{_PREFIX}endpoint_ready": ready,
                            f"{_PREFIX}endpoint_node_name": address.get("nodeName", ""),
                            f"{_PREFIX}endpoint_hostname": address.get("hostname", ""),
                        },
                    )


def _slice_parts(item: Object) -> Iterator[tuple[Object, Object, Labels]]:
    prefix = f"{_PREFIX}endpointslice_"
    for port in item.get("ports") or []:
        for endpoint in item.get("endpoints") or []:
            conditions = endpoint.get("conditions") or {}
            for address in endpoint.get("addresses") or []:
                yield (
                    endpoint,
                    port,
                    {
                        "__address__": address,
                        f"{prefix}address_type": item.get("addressType", ""),
                        f"{prefix}port": str(port.get("port", "")),
                        f"{prefix}port_name": port.get("name", ""),
                        f"{prefix}port_protocol": port.get("protocol", "TCP"),
                        f"{prefix}endpoint_hostname": endpoint.get("hostname", ""),
                        f"{prefix}endpoint_node_name": endpoint.get("nodeName", ""),
                        **{
                            f"{prefix}endpoint_conditions_{name}": str(conditions[name]).lower()
                            for name in ("ready", "serving", "terminating")
                            if conditions.get(name) is not None
                        },
                    },
                )
