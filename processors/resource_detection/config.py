"""Configuration of ``resource_detection``: the Collector's keys, for the detectors that Tailrace has.

Source: opentelemetry-collector-contrib processor/resourcedetectionprocessor config.go and the metadata.yaml of each
detector.
"""

from collections.abc import Mapping
from typing import ClassVar, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from collector.text.patterns import compile_pattern
from config.blocks import ComponentConfig, Duration

__all__ = ["DETECTORS", "AttributeSwitch", "DetectorConfig", "ResourceDetectionConfig"]

# Detector → attribute → whether it is added by default.
_SYSTEM: Final = {
    "host.arch": False,
    "host.cpu.cache.l2.size": False,
    "host.cpu.family": False,
    "host.cpu.model.id": False,
    "host.cpu.model.name": False,
    "host.cpu.stepping": False,
    "host.cpu.vendor.id": False,
    "host.id": False,
    "host.interface": False,
    "host.ip": False,
    "host.mac": False,
    "host.name": True,
    "os.build.id": False,
    "os.description": False,
    "os.name": False,
    "os.type": True,
    "os.version": False,
}
_CLOUD: Final = {"cloud.provider": True, "cloud.platform": True}
_PLACE: Final = {"cloud.account.id": True, "cloud.region": True, "cloud.availability_zone": True}
_HOST: Final = {"host.id": True, "host.name": True, "host.type": True}
_EKS: Final = ("cloud.account.id", "cloud.region", "cloud.availability_zone", *_HOST, "host.image.id")
_K8S: Final = {"k8s.node.name": True, "k8s.node.uid": True, "k8s.cluster.uid": True}
DETECTORS: Final[Mapping[str, Mapping[str, bool]]] = {
    "env": {},
    "system": _SYSTEM,
    "docker": {"host.name": True, "os.type": True, "container.name": False, "container.image.name": False},
    "k8s_api": _K8S,
    "k8snode": _K8S,
    "ec2": {**_CLOUD, **_PLACE, **_HOST, "host.image.id": True},
    "eks": {**_CLOUD, **dict.fromkeys(_EKS, False), "k8s.cluster.name": False},
    "gcp": {
        **_CLOUD,
        **_PLACE,
        **_HOST,
        "k8s.cluster.name": True,
        "faas.name": True,
        "faas.version": True,
        "faas.instance": True,
        "gcp.cloud_run.job.execution": True,
        "gcp.cloud_run.job.task_index": True,
        "gcp.gce.instance.hostname": False,
        "gcp.gce.instance.name": False,
    },
    "azure": {
        **_CLOUD,
        **_PLACE,
        "host.id": True,
        "host.name": True,
        "azure.vm.name": True,
        "azure.vm.size": True,
        "azure.vm.scaleset.name": True,
        "azure.resourcegroup.name": True,
    },
    "aks": {**_CLOUD, "k8s.cluster.name": False},
    "lambda": {
        **_CLOUD,
        "cloud.region": True,
        "faas.name": True,
        "faas.version": True,
        "faas.instance": True,
        "faas.max_memory": True,
        "aws.log.group.names": True,
        "aws.log.stream.names": True,
    },
    "heroku": {
        "cloud.provider": True,
        "heroku.app.id": True,
        "heroku.release.commit": True,
        "heroku.release.creation_timestamp": True,
        "service.instance.id": True,
        "service.name": True,
        "service.version": True,
    },
    "gpu": {"host.gpu.count": True, "host.gpu.models": True, "host.gpu.driver": False},
}
_ELSEWHERE: Final = frozenset(
    {
        "akamai", "alibaba_ecs", "azurecontainerapps", "consul", "digitalocean", "dynatrace", "ecs",
        "elastic_beanstalk", "hetzner", "ibmcloud_classic", "ibmcloud_vpc", "kubeadm", "nova", "openshift",
        "oraclecloud", "scaleway", "tencent_cvm", "upcloud", "vultr",
    }
)  # fmt: skip


class AttributeSwitch(ComponentConfig):
    """Whether an attribute is added."""

    enabled: bool
    """Whether it is added."""


class DetectorConfig(ComponentConfig):
    """The settings of a detector."""

    resource_attributes: dict[str, AttributeSwitch] = Field(default_factory=dict)
    """Which attributes are added, where that differs from the default: ``host.id: {enabled: true}``."""


class SystemConfig(DetectorConfig):
    """The settings of the detector system."""

    hostname_sources: tuple[Literal["dns", "os", "cname", "lookup"], ...] = ("dns", "os")
    """Where host.name comes from: the first of these that has a name."""


class TaggedConfig(DetectorConfig):
    """The settings of a detector that can add tags."""

    tags: tuple[str, ...] = ()
    """Regular expressions; tags of the instance whose keys match are added."""

    @field_validator("tags")
    @classmethod
    def _compile(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in tags:
            compile_pattern(pattern)
        return tags


class EC2Config(TaggedConfig):
    """The settings of the detector ec2."""

    max_attempts: int = Field(default=3, ge=1, le=100)
    """How often a request to the metadata service or the EC2 API is made before the detector fails."""
    max_backoff: Duration = Field(default=20.0, ge=0)
    """The longest pause between two of these requests; pauses begin below a second and double."""
    fail_on_missing_metadata: bool = False
    """Whether it is a failure if there is no metadata service."""
    tags_from_imds: bool = False
    """Whether ``tags`` come from the metadata service, which needs no permission but must be told to have them
    (InstanceMetadataTags), instead of from the EC2 API, which needs the permission ``ec2:DescribeTags``. Not a key of
    the Collector.
    """


class GCPConfig(DetectorConfig):
    """The settings of the detector gcp."""

    labels: tuple[str, ...] = ()
    """Regular expressions; labels of the GCE instance whose keys match are added."""

    @field_validator("labels")
    @classmethod
    def _compile(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in labels:
            compile_pattern(pattern)
        return labels


class KubernetesConfig(DetectorConfig):
    """The settings of the detectors k8s_api and eks."""

    auth_type: Literal["serviceAccount", "none"] = "serviceAccount"
    """How to authenticate at the Kubernetes API."""
    node_from_env_var: str = "K8S_NODE_NAME"
    """Environment variable that has the name of the node."""


class ResourceDetectionConfig(ComponentConfig):
    """Configuration of ``resource_detection``."""

    null_means_default: ClassVar[bool] = True

    detectors: tuple[str, ...] = Field(default=("env",), min_length=1)
    """The detectors. Of an attribute that several find, the first one counts."""
    override: bool = True
    """Whether what is found replaces what resources have already."""
    timeout: Duration = Field(default=5.0, gt=0)
    """How long the start waits for the detectors, and each of them for an answer."""
    refresh_interval: Duration = Field(default=0.0, ge=0)
    """How often detection is repeated. 0: only until every detector has succeeded once."""
    attributes: tuple[str, ...] = ()
    """The only attributes to add. Empty: all that the detectors find."""
    system: SystemConfig = SystemConfig()
    """The detector system."""
    docker: DetectorConfig = DetectorConfig()
    """The detector docker."""
    k8s_api: KubernetesConfig = KubernetesConfig()
    """The detector k8s_api."""
    k8snode: KubernetesConfig = KubernetesConfig()
    """The detector k8snode, the older name of k8s_api."""
    ec2: EC2Config = EC2Config()
    """The detector ec2."""
    eks: KubernetesConfig = KubernetesConfig()
    """The detector eks."""
    gcp: GCPConfig = GCPConfig()
    """The detector gcp."""
    azure: TaggedConfig = TaggedConfig()
    """The detector azure."""
    aks: DetectorConfig = DetectorConfig()
    """The detector aks."""
    lambda_: DetectorConfig = Field(default=DetectorConfig(), alias="lambda")
    """The detector lambda."""
    heroku: DetectorConfig = DetectorConfig()
    """The detector heroku."""
    gpu: DetectorConfig = DetectorConfig()
    """The detector gpu (specific to Tailrace): number and models of the NVIDIA GPUs."""

    @field_validator("detectors")
    @classmethod
    def _known(cls, detectors: tuple[str, ...]) -> tuple[str, ...]:
        names = []
        for detector in detectors:
            # The Collector has renamed its clouds: gce and gke are gcp today.
            name = {"gce": "gcp", "gke": "gcp"}.get(detector, detector)
            if name in _ELSEWHERE:
                raise ValueError(f"the detector {name!r} is part of the Collector, but Tailrace does not have it yet")
            if name not in DETECTORS:
                raise ValueError(f"{name!r} is not a detector; expected some of {', '.join(sorted(DETECTORS))}")
            names.append(name)
        return tuple(dict.fromkeys(names))

    @model_validator(mode="after")
    def _attributes_exist(self) -> Self:
        for name, known in DETECTORS.items():
            for attribute in self.detector(name).resource_attributes:
                if attribute not in known:
                    raise ValueError(
                        f"{name}::resource_attributes: {attribute!r} is not an attribute of this detector; "
                        f"expected some of {', '.join(sorted(known))}"
                    )
        return self

    def detector(self, name: str) -> DetectorConfig:
        """The settings of a detector."""
        settings: dict[str, DetectorConfig] = {
            "env": DetectorConfig(),
            "system": self.system,
            "docker": self.docker,
            "k8s_api": self.k8s_api,
            "k8snode": self.k8snode,
            "ec2": self.ec2,
            "eks": self.eks,
            "gcp": self.gcp,
            "azure": self.azure,
            "aks": self.aks,
            "lambda": self.lambda_,
            "heroku": self.heroku,
            "gpu": self.gpu,
        }
        return settings[name]

    def enabled(self, name: str) -> frozenset[str]:
        """The attributes that a detector adds."""
        switches = self.detector(name).resource_attributes
        return frozenset(
            attribute
            for attribute, by_default in DETECTORS[name].items()
            if (switches[attribute].enabled if attribute in switches else by_default)
        )
