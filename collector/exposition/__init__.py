"""Prometheus pages, and Prometheus series as OTLP metrics; what the receivers of Prometheus data share.

``text``      a kernel that reads the text formats into columns
``families``  which metric a series belongs to
``write``     a kernel that writes samples as OTLP
``series``    the series of one target, from page to page
"""

from collector.exposition.series import Converted, Identity, Page, SeriesTable
from collector.exposition.text import NO_TIMESTAMP, PageError, TextPage

__all__ = ["NO_TIMESTAMP", "Converted", "Identity", "Page", "PageError", "SeriesTable", "TextPage"]
