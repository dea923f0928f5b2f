"""Component types that only a vendor's distribution of the Collector has, for messages about unknown types.

The list names well-known ones and is not complete. A type counts as the same in every spelling, so underscores are left
out here.
"""

__all__ = ["distribution_of"]

_DISTRIBUTIONS = {
    "SigNoz's collector": """
        clickhouselogsexporter clickhousemetricswrite clickhousemetricswritev2 clickhousesystemtablesreceiver
        clickhousetraces httplogreceiver metadataexporter signozawsfirehosereceiver signozclickhousemeter
        signozclickhousemetrics signozhealthcheck signozkafkareceiver signozlogspipeline signozmeter signozspanmetrics
        signoztailsampling signoztransform
    """,
    "Splunk's distribution of the Collector": "discovery httpsink lightprometheus scriptedinputs smartagent",
    "Elastic's distribution of the Collector": """
        apikeyauth apmconfig beatsauth elasticapm elasticapmintake elasticinframetrics elastictrace
        filebeatreceiver lsminterval metricbeatreceiver
    """,
    "Datadog's distribution of the Collector": "ddflare ddprofiling infraattributes",
    "Amazon CloudWatch's agent": """
        agenthealth awsapplicationsignals awscloudwatch awsentity ec2tagger entitystore gpuattributes kueueattributes
    """,
    "Bindplane's distribution of the Collector": """
        bindplane chronicle chronicleforwarder datapointcount logcount maskprocessor metricextract metricstats
        qradar removeemptyvalues resourceattributetransposer spancount telemetrygenerator
        throughputmeasurement
    """,
    "Sumo Logic's distribution of the Collector": """
        activedirectoryinv cascadingfilter jobreceiver k8stagger metricfrequency rawk8sevents
    """,
    "Odigos' collector": """
        odigosconditionalattributes odigosebpf odigosrouter odigossampling odigostrafficmetrics odigosurltemplate
    """,
}
"""Types that only a vendor's distribution has, in any section."""
_DISTRIBUTION_OF = {name: distribution for distribution, names in _DISTRIBUTIONS.items() for name in names.split()}


def distribution_of(component_type: str) -> str:
    """The distribution of the Collector, other than core and contrib, that has the type; empty if none is known."""
    return _DISTRIBUTION_OF.get(component_type.replace("_", "").lower(), "")
