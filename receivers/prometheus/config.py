"""Configuration of ``prometheus``: Prometheus' own ``scrape_configs`` below ``config``, with its keys and defaults.

Source: opentelemetry-collector-contrib receiver/prometheusreceiver/config.go; prometheus/prometheus config/config.go
and discovery/*; prometheus/common config/http_config.go.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from config.blocks import ComponentConfig, OutdatedKey, Secret, TLSClientConfig
from receivers.prometheus.relabel import RelabelConfig
from receivers.prometheus.values import PrometheusDuration, PrometheusSize

__all__ = [
    "DNSDiscoveryConfig",
    "FileDiscoveryConfig",
    "HTTPAccess",
    "HTTPDiscoveryConfig",
    "KubernetesDiscoveryConfig",
    "PrometheusReceiverConfig",
    "ScrapeConfig",
    "StaticConfig",
]

Protocol = Literal["OpenMetricsText1.0.0", "OpenMetricsText0.0.1", "PrometheusText1.0.0", "PrometheusText0.0.4"]
_PROTOCOLS: Final[tuple[Protocol, ...]] = (
    "OpenMetricsText1.0.0", "OpenMetricsText0.0.1", "PrometheusText1.0.0", "PrometheusText0.0.4"
)  # fmt: skip
_VERSIONS: Final[Mapping[str, Any]] = {"TLS10": "1.0", "TLS11": "1.1", "TLS12": "1.2", "TLS13": "1.3"}


def _texts(value: Any) -> Any:
    """Values of labels: numbers and booleans are taken as they are written."""
    if isinstance(value, dict):
        return {
            key: str(text).lower() if isinstance(text, bool) else str(text) if isinstance(text, int | float) else text
            for key, text in value.items()
        }
    return value


Labels = Annotated[dict[str, str], BeforeValidator(_texts)]


class BasicAuthConfig(ComponentConfig):
    """HTTP basic authentication."""

    username: str = ""
    """The name of the user."""
    username_file: str = ""
    """A file that contains it."""
    password: Secret = Secret("")
    """The password."""
    password_file: str = ""
    """A file that contains it. It is read for every request."""


class AuthorizationConfig(ComponentConfig):
    """The header ``Authorization``."""

    type: str = "Bearer"
    """The scheme."""
    credentials: Secret = Secret("")
    """The credentials."""
    credentials_file: str = ""
    """A file that contains them. It is read for every request."""


class ScrapeTLSConfig(ComponentConfig):
    """TLS settings with Prometheus' keys."""

    ca: Secret = Secret("")
    """Certificate authorities in PEM form."""
    ca_file: str = ""
    """A file that contains them. Empty: the system's authorities."""
    cert: Secret = Secret("")
    """The client's own certificate in PEM form."""
    cert_file: str = ""
    """A file that contains it."""
    key: Secret = Secret("")
    """The private key of the certificate in PEM form."""
    key_file: str = ""
    """A file that contains it."""
    server_name: str = ""
    """The name that the server's certificate must be valid for. Empty: that of the address."""
    insecure_skip_verify: bool = False
    """Use TLS without verifying the server's certificate."""
    min_version: Literal["", "TLS10", "TLS11", "TLS12", "TLS13"] = ""
    """Lowest TLS version. Empty: TLS12."""
    max_version: Literal["", "TLS10", "TLS11", "TLS12", "TLS13"] = ""
    """Highest TLS version. Empty: the highest that is supported."""

    def client_config(self) -> TLSClientConfig:
        """The same in the Collector's keys."""
        return TLSClientConfig(
            ca_file=self.ca_file, ca_pem=self.ca, cert_file=self.cert_file, cert_pem=self.cert,
            key_file=self.key_file, key_pem=self.key, server_name_override=self.server_name,
            insecure_skip_verify=self.insecure_skip_verify, min_version=_VERSIONS.get(self.min_version, "1.2"),
            max_version=_VERSIONS.get(self.max_version, ""),
        )  # fmt: skip


class HTTPAccess(ComponentConfig):
    """How an HTTP server is asked."""

    basic_auth: BasicAuthConfig | None = None
    """HTTP basic authentication."""
    authorization: AuthorizationConfig | None = None
    """The header ``Authorization``."""
    bearer_token: Secret = Secret("")
    """A bearer token; ``authorization`` is the newer form."""
    bearer_token_file: str = ""
    """A file that contains it."""
    tls_config: ScrapeTLSConfig = ScrapeTLSConfig()
    """TLS settings."""
    proxy_url: str = ""
    """The HTTP proxy to use."""
    follow_redirects: bool = True
    """Whether to follow redirects."""
    enable_http2: bool = True
    """Accepted without effect: HTTP/1.1 is used."""

    @model_validator(mode="after")
    def _has_one_authentication(self) -> Self:
        ways = [
            name
            for name, given in (
                ("basic_auth", self.basic_auth is not None),
                ("authorization", self.authorization is not None),
                ("bearer_token", bool(self.bearer_token.get_secret_value())),
                ("bearer_token_file", bool(self.bearer_token_file)),
            )
            if given
        ]
        if len(ways) > 1:
            raise ValueError(f"at most one of basic_auth, authorization and bearer_token is possible, got {ways}")
        return self


class StaticConfig(ComponentConfig):
    """Targets that are written in the configuration."""

    targets: tuple[str, ...] = ()
    """Their addresses, as host:port."""
    labels: Labels = Field(default_factory=dict)
    """Labels of all of them."""


class FileDiscoveryConfig(ComponentConfig):
    """Targets in files: JSON or YAML, a list of mappings with ``targets`` and ``labels``."""

    files: tuple[str, ...] = Field(min_length=1)
    """Their paths; the last part may contain ``*``."""
    refresh_interval: PrometheusDuration = Field(default=300.0, gt=0)
    """How often they are read."""


class HTTPDiscoveryConfig(HTTPAccess):
    """Targets that an HTTP server lists, as JSON in the same form as in files."""

    url: str
    """Where to ask."""
    refresh_interval: PrometheusDuration = Field(default=60.0, gt=0)
    """How often to ask."""


class DNSDiscoveryConfig(ComponentConfig):
    """Targets by the addresses that host names have."""

    names: tuple[str, ...] = Field(min_length=1)
    """The host names."""
    type: Literal["SRV", "A", "AAAA", "MX", "NS"] = "SRV"
    """The type of DNS record: A or AAAA."""
    port: int = Field(default=0, ge=0, le=65535)
    """The port of the targets."""
    refresh_interval: PrometheusDuration = Field(default=30.0, gt=0)
    """How often the names are looked up."""

    @model_validator(mode="after")
    def _is_supported(self) -> Self:
        if self.type not in {"A", "AAAA"}:
            raise ValueError(f"type: {self.type} is not supported; write A or AAAA, with a port")
        if not self.port:
            raise ValueError(f"port: required with type: {self.type}")
        return self


class NamespacesConfig(ComponentConfig):
    """Which namespaces are searched."""

    own_namespace: bool = False
    """Whether to search the namespace of this pod."""
    names: tuple[str, ...] = ()
    """The namespaces. Empty, without ``own_namespace``: all."""


class SelectorConfig(ComponentConfig):
    """Which objects of a role are asked for."""

    role: Literal["node", "pod", "service", "endpoints", "endpointslice"]
    """The role."""
    label: str = ""
    """A label selector."""
    field: str = ""
    """A field selector."""


class KubernetesDiscoveryConfig(HTTPAccess):
    """Targets in a Kubernetes cluster."""

    role: Literal["node", "pod", "service", "endpoints", "endpointslice"]
    """What becomes a target."""
    api_server: str = ""
    """The URL of the API server. Empty: that of the cluster that this process runs in, with its service account."""
    namespaces: NamespacesConfig = NamespacesConfig()
    """Which namespaces are searched."""
    selectors: tuple[SelectorConfig, ...] = ()
    """Which objects are asked for."""
    refresh_interval: PrometheusDuration = Field(default=30.0, gt=0)
    """How often the API server is asked; Prometheus watches it instead and has no such key."""


class _Limits(ComponentConfig):
    """What a global setting and a job have in common."""

    scrape_interval: PrometheusDuration | None = None
    """How often targets are scraped."""
    scrape_timeout: PrometheusDuration | None = None
    """Longest time of one scrape; never longer than the interval."""
    scrape_protocols: tuple[Protocol, ...] | None = Field(default=None, min_length=1)
    """The formats to ask for, in the order of preference."""
    body_size_limit: PrometheusSize | None = None
    """Largest page after decompression; a larger one is refused. 0: 1 GiB."""
    sample_limit: int | None = Field(default=None, ge=0)
    """Most samples of a page after relabelling; with more, the scrape fails. 0: no limit."""
    label_limit: int | None = Field(default=None, ge=0)
    """Most labels of a series. 0: no limit."""
    label_name_length_limit: int | None = Field(default=None, ge=0)
    """Longest name of a label in bytes. 0: no limit."""
    label_value_length_limit: int | None = Field(default=None, ge=0)
    """Longest value of a label in bytes. 0: no limit."""
    target_limit: int | None = Field(default=None, ge=0)
    """Most targets of a job; with more, none of them is scraped. 0: no limit."""
    extra_scrape_metrics: bool | None = None
    """Whether to add scrape_timeout_seconds, scrape_sample_limit and scrape_body_size_bytes."""


class GlobalConfig(_Limits):
    """What applies to all jobs that do not say otherwise."""

    external_labels: Labels = Field(default_factory=dict)
    """Labels to add to every series."""
    evaluation_interval: PrometheusDuration = 60.0
    """Accepted without effect: there are no rules to evaluate."""


class ScrapeConfig(_Limits, HTTPAccess):
    """A job: targets that are scraped in the same way."""

    job_name: str = Field(min_length=1)
    """Its name, and by default the label ``job``."""
    fallback_scrape_protocol: Protocol | Literal[""] = ""
    """The format of pages whose Content-Type is missing or unknown. Empty: such a scrape fails."""
    metrics_path: str = "/metrics"
    """The path of the page."""
    scheme: Literal["http", "https"] = "http"
    """The scheme of the URL."""
    params: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Query parameters."""
    honor_labels: bool = False
    """Whether labels on the page win over those of the target; otherwise they become ``exported_…``."""
    honor_timestamps: bool = True
    """Whether to believe timestamps on the page."""
    track_timestamps_staleness: bool = False
    """Whether series with timestamps of their own are marked when they disappear."""
    enable_compression: bool = True
    """Whether to ask for compressed pages."""
    http_headers: dict[str, "HeaderValues"] = Field(default_factory=dict)
    """Further headers of the request."""
    static_configs: tuple[StaticConfig, ...] = ()
    """Targets that are written here."""
    file_sd_configs: tuple[FileDiscoveryConfig, ...] = ()
    """Targets in files."""
    http_sd_configs: tuple[HTTPDiscoveryConfig, ...] = ()
    """Targets that an HTTP server lists."""
    dns_sd_configs: tuple[DNSDiscoveryConfig, ...] = ()
    """Targets by the addresses of host names."""
    kubernetes_sd_configs: tuple[KubernetesDiscoveryConfig, ...] = ()
    """Targets in a Kubernetes cluster."""
    relabel_configs: tuple[RelabelConfig, ...] = ()
    """Rules for the labels of targets."""
    metric_relabel_configs: tuple[RelabelConfig, ...] = ()
    """Rules for the labels of series."""

    def setting(self, name: str, common: GlobalConfig, default: Any) -> Any:
        """The job's own setting, or else the global one, or else ``default``."""
        own = getattr(self, name)
        if own is None:
            own = getattr(common, name)
        return default if own is None else own


class HeaderValues(ComponentConfig):
    """The values of a header."""

    values: tuple[str, ...] = ()
    """Values."""
    secrets: tuple[Secret, ...] = ()
    """Values that are not shown."""


class PrometheusConfig(ComponentConfig):
    """Prometheus' configuration, as far as it is about scraping."""

    global_: GlobalConfig = Field(default=GlobalConfig(), alias="global")
    """What applies to all jobs."""
    scrape_configs: tuple[ScrapeConfig, ...] = ()
    """The jobs."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        names = [job.job_name for job in self.scrape_configs]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"scrape_configs: there are {names.count(name)} jobs with the name {name!r}")
        for job in self.scrape_configs:
            interval, timeout = self.times(job)
            if not interval:
                raise ValueError(f"scrape_interval of job {job.job_name!r} must be greater than 0")
            if timeout > interval:
                raise ValueError(
                    f"scrape_timeout of job {job.job_name!r} is longer than its scrape_interval ({interval:g}s)"
                )
        return self

    def times(self, job: ScrapeConfig) -> tuple[float, float]:
        """The interval and the timeout of a job in seconds."""
        interval = job.setting("scrape_interval", self.global_, 60.0)
        if job.scrape_timeout is not None:
            return interval, job.scrape_timeout
        return interval, min(self.global_.scrape_timeout or 10.0, interval)


class PrometheusReceiverConfig(ComponentConfig):
    """Configuration of ``prometheus``: scrapes targets as Prometheus does."""

    outdated_keys: ClassVar[Mapping[str, OutdatedKey]] = {
        "use_start_time_metric": OutdatedKey(),
        "start_time_metric_regex": OutdatedKey(),
        "report_extra_scrape_metrics": OutdatedKey(write="config::global::extra_scrape_metrics"),
    }

    config: PrometheusConfig = PrometheusConfig()
    """Prometheus' configuration: ``global`` and ``scrape_configs``."""
    trim_metric_suffixes: bool = False
    """Whether to take the suffixes for type and unit (``_total``, ``_seconds``) off the names of metrics."""
    target_allocator: Any = None
    """Not supported: targets come from ``config``."""

    @model_validator(mode="after")
    def _is_supported(self) -> Self:
        if self.target_allocator is not None:
            raise ValueError(
                "target_allocator: not supported; write scrape_configs, for example with kubernetes_sd_configs"
            )
        if not self.config.scrape_configs:
            raise ValueError("config::scrape_configs: required, with at least one job")
        return self


ScrapeConfig.model_rebuild()
