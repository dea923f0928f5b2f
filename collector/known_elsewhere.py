"""The names of the OpenTelemetry Collector's component types (core and contrib).

Messages use them to say that the Collector has a component that Tailrace lacks. A type counts as the same in every
spelling (``filelog``, ``file_log``), so underscores are left out here.

Source: distributions/otelcol-contrib/manifest.yaml of open-telemetry/opentelemetry-collector-releases, the types from
each component's metadata.yaml; components that came or went around that version are included.
"""

from collector.api import ComponentKind

__all__ = ["is_known_elsewhere", "is_safe_to_skip"]

_RECEIVERS = """
activedirectoryds aerospike apache apachespark awscloudwatch awscontainerinsightreceiver awsecscontainermetrics
awsfirehose awslambda awss3 awsxray azureblob azureeventhub azuremonitor bigip carbon chrony ciscoos cloudflare
cloudfoundry collectd couchdb datadog dockerstats elasticsearch envoyals expvar faro filestats flinkmetrics
fluentforward github gitlab googlecloudmonitoring googlecloudpubsub googlecloudpubsubpush googlecloudspanner haproxy
httpcheck huaweicloudces icmpcheck iis influxdb jmx journald k8scluster k8sevents k8sobjects kafka
kafkametrics kubeletstats libhoney memcached mongodb mongodbatlas mysql namedpipe netflow nginx nop nsxt ntp
opencensus oracledb osquery otelarrow otlp otlpjsonfile podmanstats postgresql pprof prometheusremotewrite
prometheussimple pulsar purefa purefb rabbitmq receivercreator redfish redis riak saphana sapm signalfx skywalking snmp
snowflake solace splunkenterprise splunkhec sqlquery sqlserver sshcheck statsd stef systemd tcpcheck
tlscheck vcenter wavefront webhookevent windowseventlog windowsperfcounters windowsservice yanggrpc
zookeeper
"""
_PROCESSORS = """
attributes batch cardinalityguardian coralogix datadogsemantics deltatorate
dnslookup drain experimentalmetricsmetadata filter genainormalizer geoip groupbytrace interval
isolationforest k8sattributes logdedup logstransform lookup memorylimiter metricsgeneration metricstarttime
probabilisticsampler queuebatch remotetap resource routing schema
servicegraph spanmetrics spanpruning sumologic tailsampling transform unroll
"""
_EXPORTERS = """
alibabacloudlogservice awscloudwatchlogs awsemf awskinesis awss3 awsxray azureblob azuredataexplorer azuremonitor
bmchelix carbon cassandra clickhouse coralogix datadog dataset debug doris elasticsearch faro file googlecloud
googlecloudpubsub googlecloudstorage googlemanagedprometheus honeycombmarker influxdb instana kafka kinetica
loadbalancing logicmonitor logzio loki mezmo nop opencensus opensearch otelarrow otlp otlphttp prometheus
prometheusremotewrite pulsar rabbitmq sapm sematext sentry signalfx skywalking splunkhec stef sumologic syslog
tencentcloudlogservice tinybird
"""
_CONNECTORS = """
datadog failover forward grafanacloud metricsaslogs otlpjson roundrobin servicegraph
signaltometrics slowsql spanmetrics sum
"""
_EXTENSIONS = """
ack asapclient avrologencoding awscloudwatchmetricstreamsencoding awslogsencoding awsproxy azureauth azureencoding
cgroupruntime datadog dbstorage dockerobserver ecsobserver ecstaskobserver
googleclientauth googlecloudlogentryencoding healthcheck healthcheckv2 hostobserver httpforwarder
jaegerencoding jaegerremotesampling jsonlogencoding k8sleaderelector k8sobserver kafkatopicsobserver memoryballast
memorylimiter oauth2client opamp otlpencoding pebbletailstorage redisstorage remotetap sigv4auth
skywalkingencoding solarwindsapmsettings sumologic textencoding zipkinencoding
"""
_HARMLESS_PROCESSORS = """
batch cardinalityguardian datadogsemantics deltatorate dnslookup geoip groupbytrace interval isolationforest
k8sattributes logdedup memorylimiter metricsgeneration metricstarttime probabilisticsampler queuebatch remotetap
servicegraph spanmetrics tailsampling
"""
"""Processors that only add to data, collect or sample it: without them nothing leaves that should not."""
_SAFE_TO_SKIP = frozenset(_HARMLESS_PROCESSORS.split())
_TYPES = {
    ComponentKind.RECEIVER: frozenset(_RECEIVERS.split()),
    ComponentKind.PROCESSOR: frozenset(_PROCESSORS.split()),
    ComponentKind.EXPORTER: frozenset(_EXPORTERS.split()),
    ComponentKind.CONNECTOR: frozenset(_CONNECTORS.split()),
    ComponentKind.EXTENSION: frozenset(_EXTENSIONS.split()),
}


def is_known_elsewhere(kind: ComponentKind, component_type: str) -> bool:
    """Whether the Collector has (or had) a component of that type, in any spelling."""
    return component_type.replace("_", "").lower() in _TYPES[kind]


def is_safe_to_skip(component_type: str) -> bool:
    """Whether the processor of that type certainly does not keep data from leaving, as redaction and filters do."""
    return component_type.replace("_", "").lower() in _SAFE_TO_SKIP
