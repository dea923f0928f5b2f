"""Detectors that ask a metadata service, the Docker daemon or the Kubernetes API.

No answer means that this machine is elsewhere: most detectors then find nothing, which is not a failure.

Source: AWS "Instance metadata", Google "View and query VM metadata", Azure "Instance Metadata Service", Docker Engine
API, Kubernetes API; the Collector's resourcedetectionprocessor/internal.
"""

import os
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from collector.text.patterns import compile_pattern
from processors.resource_detection.aws import InstanceMetadata, instance_tags
from processors.resource_detection.config import ResourceDetectionConfig
from processors.resource_detection.fetch import DetectionError, Fetch

__all__ = [
    "detect_aks",
    "detect_azure",
    "detect_docker",
    "detect_ec2",
    "detect_eks",
    "detect_gcp",
    "detect_k8s_api",
    "detect_k8snode",
]

AZURE_ENDPOINT = "http://169.254.169.254"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
GCE_API = "https://compute.googleapis.com"
_TAGS_MAX: Final = 128
_CLUSTER_TAG: Final = "kubernetes.io/cluster/"


async def detect_ec2(config: ResourceDetectionConfig) -> dict[str, Any]:
    """An instance of Amazon EC2."""
    imds = InstanceMetadata(config)
    try:
        await imds.login()
    except DetectionError:
        if config.ec2.fail_on_missing_metadata:
            raise
        return {}
    found = {"cloud.provider": "aws", "cloud.platform": "aws_ec2", **await imds.instance()}
    if not config.ec2.tags:
        return found
    if not config.ec2.tags_from_imds:
        tags = await instance_tags(config, imds, str(found["cloud.region"]), str(found["host.id"]))
        return found | _matching(tags, config.ec2.tags, "ec2.tag.")
    patterns: list[Any] = [compile_pattern(pattern) for pattern in config.ec2.tags]
    for key in (await imds.text("/latest/meta-data/tags/instance")).split()[:_TAGS_MAX]:
        if any(pattern.search(key) for pattern in patterns):
            found[f"ec2.tag.{key}"] = await imds.text(f"/latest/meta-data/tags/instance/{quote(key)}")
    return found


async def detect_eks(config: ResourceDetectionConfig) -> dict[str, Any]:
    """A pod of Amazon EKS."""
    if not os.environ.get("KUBERNETES_SERVICE_HOST"):
        return {}
    is_eks = "eks.amazonaws.com" in os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE", "")
    is_eks |= "eks-pod-identity" in os.environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "")
    kubernetes = _Kubernetes(config, config.eks.auth_type)
    if not is_eks:
        version = await kubernetes.get("/version")
        is_eks = "-eks-" in str(version.get("gitVersion", ""))
    if not is_eks:
        return {}
    found: dict[str, Any] = {"cloud.provider": "aws", "cloud.platform": "aws_eks"}
    if config.enabled("eks") - set(found):
        imds = InstanceMetadata(config)
        await imds.login()
        found |= await imds.instance()
        if "k8s.cluster.name" in config.enabled("eks"):
            tags = await instance_tags(config, imds, str(found["cloud.region"]), str(found["host.id"]))
            found["k8s.cluster.name"] = _eks_cluster(tags)
    return found


async def detect_gcp(config: ResourceDetectionConfig) -> dict[str, Any]:
    """Google Cloud: GKE, Cloud Run, Cloud Functions, App Engine or a Compute Engine instance."""
    host = os.environ.get("GCE_METADATA_HOST") or "169.254.169.254"
    base, headers = f"http://{host}/computeMetadata/v1", {"Metadata-Flavor": "Google"}
    fetch = Fetch(config.timeout)
    try:
        metadata = await fetch.json(f"{base}/?recursive=true", headers=headers)
    except DetectionError:
        return {}
    instance, project = _mapping(metadata, "instance"), _mapping(metadata, "project")
    zone = str(instance.get("zone", "")).rpartition("/")[2]
    region = str(instance.get("region", "")).rpartition("/")[2] or zone.rpartition("-")[0]
    instance_id = str(instance["id"]) if "id" in instance else None
    name = instance.get("name") or str(instance.get("hostname", "")).partition(".")[0] or None
    found: dict[str, Any] = {"cloud.provider": "gcp", "cloud.account.id": project.get("projectId")}
    attributes = _mapping(instance, "attributes")
    if os.environ.get("KUBERNETES_SERVICE_HOST") and "cluster-name" in attributes:
        location = str(attributes.get("cluster-location", ""))
        is_zone = location.count("-") == 2
        return found | {
            "cloud.platform": "gcp_kubernetes_engine",
            "cloud.availability_zone" if is_zone else "cloud.region": location,
            "k8s.cluster.name": attributes["cluster-name"],
            "host.id": instance_id,
            "host.name": name,
        }
    if "CLOUD_RUN_JOB" in os.environ:
        return found | {
            "cloud.platform": "gcp_cloud_run",
            "cloud.region": region,
            "faas.name": os.environ["CLOUD_RUN_JOB"],
            "faas.instance": instance_id,
            "gcp.cloud_run.job.execution": os.environ.get("CLOUD_RUN_EXECUTION"),
            "gcp.cloud_run.job.task_index": os.environ.get("CLOUD_RUN_TASK_INDEX"),
        }
    if "K_SERVICE" in os.environ:
        is_function = "FUNCTION_TARGET" in os.environ
        return found | {
            "cloud.platform": "gcp_cloud_functions" if is_function else "gcp_cloud_run",
            "cloud.region": region,
            "faas.name": os.environ["K_SERVICE"],
            "faas.version": os.environ.get("K_REVISION"),
            "faas.instance": instance_id,
        }
    if "GAE_SERVICE" in os.environ:
        return found | {
            "cloud.platform": "gcp_app_engine",
            "cloud.availability_zone": zone,
            "cloud.region": region,
            "faas.name": os.environ["GAE_SERVICE"],
            "faas.version": os.environ.get("GAE_VERSION"),
            "faas.instance": os.environ.get("GAE_INSTANCE"),
        }
    found |= {
        "cloud.platform": "gcp_compute_engine",
        "cloud.availability_zone": zone,
        "cloud.region": region,
        "host.type": instance.get("machineType"),
        "host.id": instance_id,
        "host.name": name,
        "gcp.gce.instance.hostname": instance.get("hostname"),
        "gcp.gce.instance.name": name,
    }
    if config.gcp.labels:
        token = await fetch.json(f"{base}/instance/service-accounts/default/token", headers=headers)
        url = f"{GCE_API}/compute/v1/projects/{project.get('projectId')}/zones/{zone}/instances/{name}"
        described = await fetch.json(url, headers={"Authorization": f"Bearer {token.get('access_token', '')}"})
        found |= _matching(_mapping(described, "labels"), config.gcp.labels, "gcp.gce.instance.labels.")
    return found


async def detect_azure(config: ResourceDetectionConfig) -> dict[str, Any]:
    """A virtual machine of Azure."""
    compute = await _azure_compute(config)
    if compute is None:
        return {}
    tags = {str(tag.get("name")): tag.get("value") for tag in compute.get("tagsList") or () if isinstance(tag, dict)}
    zone = compute.get("zone")
    return {
        "cloud.provider": "azure",
        "cloud.platform": "azure.vm",
        "cloud.region": compute.get("location"),
        "cloud.account.id": compute.get("subscriptionId"),
        "cloud.availability_zone": zone or None,
        "host.id": compute.get("vmId"),
        "host.name": _mapping(compute, "osProfile").get("computerName") or compute.get("name"),
        "azure.vm.name": compute.get("name"),
        "azure.vm.size": compute.get("vmSize"),
        "azure.vm.scaleset.name": compute.get("vmScaleSetName") or None,
        "azure.resourcegroup.name": compute.get("resourceGroupName"),
        **_matching(tags, config.azure.tags, "azure.tag."),
    }


async def detect_aks(config: ResourceDetectionConfig) -> dict[str, Any]:
    """A pod of Azure AKS."""
    if not os.environ.get("KUBERNETES_SERVICE_HOST"):
        return {}
    compute = await _azure_compute(config)
    if compute is None:
        return {}
    # MC_<resource group>_<cluster>_<location> is what AKS calls the resource group of the nodes.
    parts = str(compute.get("resourceGroupName", "")).split("_")
    cluster = parts[-2] if len(parts) == 4 and parts[0].upper() == "MC" else None
    return {"cloud.provider": "azure", "cloud.platform": "azure.aks", "k8s.cluster.name": cluster}


async def detect_docker(config: ResourceDetectionConfig) -> dict[str, Any]:
    """The host of the container, from the Docker daemon."""
    address = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if address.startswith("unix://"):
        base, fetch = "http://docker", Fetch(config.timeout, socket_path=address.removeprefix("unix://"))
    else:
        base, fetch = address.replace("tcp://", "http://", 1), Fetch(config.timeout)
    daemon = await fetch.json(f"{base}/info")
    found = {"host.name": daemon.get("Name"), "os.type": str(daemon.get("OSType", "")).lower() or None}
    if config.enabled("docker") & {"container.name", "container.image.name"}:
        container = await fetch.json(f"{base}/containers/{quote(socket.gethostname())}/json")
        found["container.name"] = str(container.get("Name", "")).lstrip("/") or None
        found["container.image.name"] = _mapping(container, "Config").get("Image")
    return found


async def detect_k8s_api(config: ResourceDetectionConfig) -> dict[str, Any]:
    """Node and cluster, from the Kubernetes API."""
    return await _kubernetes_node(config, "k8s_api")


async def detect_k8snode(config: ResourceDetectionConfig) -> dict[str, Any]:
    """The same under the older name."""
    return await _kubernetes_node(config, "k8snode")


async def _kubernetes_node(config: ResourceDetectionConfig, detector: str) -> dict[str, Any]:
    settings = config.k8s_api if detector == "k8s_api" else config.k8snode
    name = os.environ.get(settings.node_from_env_var)
    if not name:
        raise DetectionError(f"the environment variable {settings.node_from_env_var} must have the name of the node")
    wanted, kubernetes = config.enabled(detector), _Kubernetes(config, settings.auth_type)
    found: dict[str, Any] = {"k8s.node.name": name}
    if "k8s.node.uid" in wanted:
        node = await kubernetes.get(f"/api/v1/nodes/{quote(name)}")
        found["k8s.node.uid"] = _mapping(node, "metadata").get("uid")
    if "k8s.cluster.uid" in wanted:
        try:
            namespace = await kubernetes.get("/api/v1/namespaces/kube-system")
        except DetectionError:  # many service accounts may read nodes only
            return found
        found["k8s.cluster.uid"] = _mapping(namespace, "metadata").get("uid")
    return found


async def _azure_compute(config: ResourceDetectionConfig) -> dict[str, Any] | None:
    try:
        return await Fetch(config.timeout).json(
            f"{AZURE_ENDPOINT}/metadata/instance/compute?api-version=2020-09-01&format=json",
            headers={"Metadata": "True"},
        )
    except DetectionError:
        return None


class _Kubernetes:
    """The Kubernetes API, as the service account of the pod."""

    def __init__(self, config: ResourceDetectionConfig, auth_type: str) -> None:
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise DetectionError("this is not a pod of Kubernetes: KUBERNETES_SERVICE_HOST is not set")
        self._base = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        self._headers: dict[str, str] = {}
        try:
            context = ssl.create_default_context(cafile=str(SERVICE_ACCOUNT / "ca.crt"))
            if auth_type == "serviceAccount":
                token = (SERVICE_ACCOUNT / "token").read_text(encoding="utf-8").strip()
                self._headers = {"Authorization": f"Bearer {token}"}
        except OSError as error:
            raise DetectionError(f"the service account cannot be read: {error.strerror}") from error
        self._fetch = Fetch(config.timeout, ssl=context)

    async def get(self, path: str) -> dict[str, Any]:
        return await self._fetch.json(self._base + path, headers=self._headers)


def _eks_cluster(tags: Mapping[str, str]) -> str | None:
    """The name of the cluster that a node belongs to, from the tags that EKS, eksctl and the AWS controllers set."""
    for key in ("aws:eks:cluster-name", "eks:cluster-name", "alpha.eksctl.io/cluster-name"):
        if tags.get(key):
            return tags[key]
    owned = (key.removeprefix(_CLUSTER_TAG) for key in sorted(tags) if key.startswith(_CLUSTER_TAG))
    return next(owned, None)


def _mapping(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _matching(tags: Mapping[str, Any], patterns: tuple[str, ...], prefix: str) -> dict[str, Any]:
    """The tags whose keys match one of the patterns."""
    compiled: list[Any] = [compile_pattern(pattern) for pattern in patterns]
    return {prefix + key: value for key, value in tags.items() if any(pattern.search(key) for pattern in compiled)}
