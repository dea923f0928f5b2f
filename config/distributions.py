"""Component types that only a vendor's distribution of the Collector has, for messages about unknown types.

The list names well-known ones and is not complete. A type counts as the same in every spelling, so underscores are left
out here.
"""

__all__ = ["distribution_of"]

_DISTRIBUTIONS = {
    "SigNoz's collector": "clickhouselogsexporter clickhousemetricswrite clickhousetraces",
    "Splunk's distribution of the Collector": "discovery lightprometheus scriptedinputs smartagent",
    "Elastic's distribution of the Collector": "elasticapm elasticapmintake elastictrace",
}
"""Types that only a vendor's distribution has, in any section."""
_DISTRIBUTION_OF = {name: distribution for distribution, names in _DISTRIBUTIONS.items() for name in names.split()}


def distribution_of(component_type: str) -> str:
    """The distribution of the Collector, other than core and contrib, that has the type; empty if none is known."""
    return _DISTRIBUTION_OF.get(component_type.replace("_", "").lower(), "")
