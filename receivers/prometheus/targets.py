"""Targets: from what discovery finds to a URL, the labels of its series and the attributes of its resource.

Source: prometheus/prometheus scrape/target.go (PopulateDiscoveredLabels, PopulateLabels, mutateSampleLabels);
opentelemetry-collector-contrib receiver/prometheusreceiver/internal/prom_to_otlp.go (CreateResource).
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode, urlsplit, urlunsplit

from collector.exposition import Identity
from receivers.prometheus.config import GlobalConfig, ScrapeConfig
from receivers.prometheus.relabel import Relabeller

__all__ = ["LimitError", "SampleLabels", "Target", "identity_of", "resource_attributes", "targets_of"]

_PARAM: Final = "__param_"
_EXPORTED: Final = "exported_"
_KUBERNETES: Final = {
    "__meta_kubernetes_pod_name": "k8s.pod.name",
    "__meta_kubernetes_pod_uid": "k8s.pod.uid",
    "__meta_kubernetes_pod_container_name": "k8s.container.name",
    "__meta_kubernetes_namespace": "k8s.namespace.name",
    "__meta_kubernetes_pod_node_name": "k8s.node.name",
    "__meta_kubernetes_node_name": "k8s.node.name",
    "__meta_kubernetes_endpoint_node_name": "k8s.node.name",
}
_CONTROLLERS: Final = {
    kind: f"k8s.{kind.lower()}.name" for kind in ("ReplicaSet", "DaemonSet", "StatefulSet", "Job", "CronJob")
}


class LimitError(ValueError):
    """A page exceeds a limit of the job."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is scraped."""

    url: str
    labels: Mapping[str, str]
    """The labels of all of its series."""
    discovered: Mapping[str, str] = field(hash=False, compare=False)
    """All labels before relabelling."""

    @property
    def key(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """What makes it this target."""
        return self.url, tuple(sorted(self.labels.items()))


def targets_of(
    job: ScrapeConfig, times: tuple[float, float], rules: Relabeller, found: Sequence[Mapping[str, str]]
) -> tuple[list[Target], list[str]]:
    """The targets among what was found, without duplicates, and what is wrong with the others."""
    targets: dict[object, Target] = {}
    errors = []
    for labels in found:
        try:
            target = _target(job, times, rules, labels)
        except ValueError as error:
            errors.append(str(error))
            continue
        if target is not None:
            targets.setdefault(target.key, target)
    return list(targets.values()), errors


def _target(
    job: ScrapeConfig, times: tuple[float, float], rules: Relabeller, found: Mapping[str, str]
) -> Target | None:
    discovered = {
        "job": job.job_name,
        "__scheme__": job.scheme,
        "__metrics_path__": job.metrics_path,
        "__scrape_interval__": f"{times[0]:g}s",
        "__scrape_timeout__": f"{times[1]:g}s",
        **{_PARAM + name: values[0] for name, values in job.params.items() if values},
        **{name: value for name, value in found.items() if value},
    }
    labels = rules.apply(dict(discovered))
    if labels is None:
        return None
    address = labels.get("__address__", "")
    if not address:
        raise ValueError("a target without the label __address__")
    if "/" in address or urlsplit(f"//{address}").hostname is None:
        raise ValueError(f"{address!r} is not a valid address of a target (example: localhost:9100)")
    scheme = labels.get("__scheme__", "")
    if scheme not in {"http", "https"}:
        raise ValueError(f"{scheme!r} is not a valid scheme of a target; use http or https")
    params = {name: list(values) for name, values in job.params.items()}
    for name, value in labels.items():
        if name.startswith(_PARAM):
            params[name.removeprefix(_PARAM)] = [value, *params.get(name.removeprefix(_PARAM), [])[1:]]
    path, _, query = labels.get("__metrics_path__", "").partition("?")
    query = "&".join(filter(None, (query, urlencode(params, doseq=True))))
    url = urlunsplit((scheme, address, path if path.startswith("/") else f"/{path}", query, ""))
    own = {name: value for name, value in labels.items() if not name.startswith("__") and value}
    own.setdefault("instance", address)
    return Target(url, own, {**discovered, "__scheme__": scheme})


class SampleLabels:
    """The final labels of the series of one target."""

    def __init__(self, job: ScrapeConfig, common: GlobalConfig, target: Target, rules: Relabeller) -> None:
        self._target_labels = dict(target.labels)
        self._honors, self._rules = job.honor_labels, rules
        self._external = common.external_labels
        self._limits = tuple(
            job.setting(name, common, 0)
            for name in ("label_limit", "label_name_length_limit", "label_value_length_limit")
        )

    def of_report(self) -> dict[str, str]:
        """The labels of the series that are added about each scrape."""
        return {**self._target_labels, **self._external}

    def __call__(self, name: str, pairs: Sequence[tuple[str, str]]) -> dict[str, str] | None:
        """The labels of a series on the page; None: dropped.

        Raises:
            LimitError: The series exceeds a limit, or has a label twice.
        """
        labels = dict(pairs)
        if len(labels) < len(pairs):
            raise LimitError(f"a series of {name!r} has a label twice")
        labels["__name__"] = name
        for key, value in self._target_labels.items():
            own = labels.get(key, "")
            if self._honors:
                labels.setdefault(key, value)
            else:
                if own:
                    moved = _EXPORTED + key
                    while labels.get(moved) or moved in self._target_labels:
                        moved = _EXPORTED + moved
                    labels[moved] = own
                labels[key] = value
        labels = {key: value for key, value in labels.items() if value}
        if self._rules:
            changed = self._rules.apply(labels)
            if changed is None:
                return None
            labels = changed
        self._check(labels)
        return {**labels, **self._external} if self._external else labels

    def _check(self, labels: Mapping[str, str]) -> None:
        count, name_length, value_length = self._limits
        name = labels.get("__name__", "")[:100]
        if count and len(labels) > count:
            raise LimitError(f"a series of {name!r} has {len(labels)} labels; label_limit is {count}")
        for key, value in labels.items() if name_length or value_length else ():
            if name_length and len(key.encode()) > name_length:
                raise LimitError(f"a label of {name!r} has a longer name than label_name_length_limit ({name_length})")
            if value_length and len(value.encode()) > value_length:
                raise LimitError(
                    f"label {key[:100]!r} of {name!r} has a longer value than label_value_length_limit ({value_length})"
                )


def identity_of(labels: Mapping[str, str], target: Target) -> Identity:
    """The resource of a series: that of its labels ``job`` and ``instance``, or else of its target."""
    job, instance = labels.get("job", ""), labels.get("instance", "")
    return Identity(job or target.labels.get("job", ""), instance or target.labels.get("instance", ""))


def resource_attributes(identity: Identity, discovered: Mapping[str, str]) -> dict[str, str]:
    """The attributes of a resource."""
    host, port = _host_and_port(identity.instance)
    attributes = {"service.name": identity.job}
    if _is_discernible(host):
        attributes["server.address"] = host
    attributes.update(
        {
            "service.instance.id": identity.instance,
            "server.port": port,
            "url.scheme": discovered.get("__scheme__", ""),
        }
    )
    for label, key in _KUBERNETES.items():
        if discovered.get(label):
            attributes[key] = discovered[label]
    controller = _CONTROLLERS.get(discovered.get("__meta_kubernetes_pod_controller_kind", ""))
    if controller and discovered.get("__meta_kubernetes_pod_controller_name"):
        attributes[controller] = discovered["__meta_kubernetes_pod_controller_name"]
    return attributes


def _host_and_port(instance: str) -> tuple[str, str]:
    """As Go's SplitHostPort: without a port, or with something else than an address, all of it is the host."""
    host, colon, port = instance.rpartition(":")
    if not colon or "/" in port:
        return instance, ""
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], port
    return (instance, "") if ":" in host else (host, port)


def _is_discernible(host: str) -> bool:
    """Whether the host means something elsewhere."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host != "localhost"
    return not (address.is_loopback or address.is_unspecified)
