"""What both remote-write specifications demand of the content of a request; a real receiver does not check all of it.

``check_v1`` and ``check_v2`` raise AssertionError and return what the request says, in one form for both versions:
(sorted labels) → a :class:`Series`.

Source: Prometheus remote-write specifications 1.0 and 2.0.
"""

import dataclasses
import struct

__all__ = ["V1", "V2", "Series", "check_v1", "check_v2"]

_HISTOGRAM = [
    "uint64 count_int 1", "double sum 3", "sint32 schema 4", "double zero_threshold 5", "uint64 zero_count_int 6",
    "*BucketSpan negative_spans 8", "*sint64 negative_deltas 9", "*BucketSpan positive_spans 11",
    "*sint64 positive_deltas 12", "int32 reset_hint 14", "int64 timestamp 15", "*double custom_values 16",
]  # fmt: skip
_SPAN = ["sint32 offset 1", "uint32 length 2"]
V1 = {
    "WriteRequest": ["*TimeSeries timeseries 1", "*MetricMetadata metadata 3"],
    "MetricMetadata": ["int32 type 1", "string metric_family_name 2", "string help 4", "string unit 5"],
    "TimeSeries": ["*Label labels 1", "*Sample samples 2", "*Exemplar exemplars 3", "*Histogram histograms 4"],
    "Label": ["string name 1", "string value 2"],
    "Sample": ["double value 1", "int64 timestamp 2"],
    "Exemplar": ["*Label labels 1", "double value 2", "int64 timestamp 3"],
    "BucketSpan": _SPAN,
    "Histogram": _HISTOGRAM,
}
V2 = {
    "Request": ["*string symbols 4", "*TimeSeries timeseries 5"],
    "TimeSeries": [
        "*uint32 labels_refs 1", "*Sample samples 2", "*Histogram histograms 3", "*Exemplar exemplars 4",
        "Metadata metadata 5",
    ],
    "Metadata": ["int32 type 1", "uint32 help_ref 3", "uint32 unit_ref 4"],
    "Sample": ["double value 1", "int64 timestamp 2", "int64 start_timestamp 3"],
    "Exemplar": ["*uint32 labels_refs 1", "double value 2", "int64 timestamp 3"],
    "BucketSpan": _SPAN,
    "Histogram": [*_HISTOGRAM, "int64 start_timestamp 17"],
}  # fmt: skip


@dataclasses.dataclass
class Series:
    """The samples are (bits of the value, time, start); histograms are the messages."""

    samples: list = dataclasses.field(default_factory=list)
    histograms: list = dataclasses.field(default_factory=list)
    exemplars: list = dataclasses.field(default_factory=list)
    metadata: tuple = ()
    """Type, help, unit."""

    def values(self):
        return [struct.unpack("<d", struct.pack("<Q", bits))[0] for bits, _, _ in self.samples]


def check_v1(request):
    found = {}
    for series in request.timeseries:
        labels = [(label.name, label.value) for label in series.labels]
        exemplars = [
            (sorted((label.name, label.value) for label in exemplar.labels), exemplar.value, exemplar.timestamp)
            for exemplar in series.exemplars
        ]
        _check_series(labels, series)
        _add(found, labels, series, exemplars, ())
    return found


def check_v2(request):
    symbols = list(request.symbols)
    assert symbols[0] == "", "MUST: the first symbol is the empty string"
    assert len(set(symbols)) == len(symbols), "SHOULD: symbols are deduplicated"
    used, found = {0}, {}

    def resolve(refs):
        assert len(refs) % 2 == 0, "MUST: references come in pairs"
        assert all(ref < len(symbols) for ref in refs), "MUST: a reference is within the symbols"
        used.update(refs)
        return [(symbols[name], symbols[value]) for name, value in zip(refs[::2], refs[1::2], strict=True)]

    for series in request.timeseries:
        labels = resolve(series.labels_refs)
        _check_series(labels, series)
        for point in (*series.samples, *series.histograms):
            assert 0 <= point.start_timestamp < point.timestamp, "a start is before its sample, or 0: unknown"
        about = series.metadata
        used.update((about.help_ref, about.unit_ref))
        metadata = about.type, symbols[about.help_ref], symbols[about.unit_ref]
        exemplars = [
            (sorted(resolve(exemplar.labels_refs)), exemplar.value, exemplar.timestamp) for exemplar in series.exemplars
        ]
        _add(found, labels, series, exemplars, metadata)
    assert used == set(range(len(symbols))), "every symbol is referenced"
    return found


def _check_series(labels, series):
    names = [name.encode() for name, _ in labels]
    assert names == sorted(names), "MUST: labels are sorted by name"
    assert len(set(names)) == len(names), "MUST: label names are not repeated"
    assert all(name and value for name, value in labels), "MUST: no label name or value is empty"
    assert b"__name__" in names, "SHOULD: a series has a name"
    assert bool(series.samples) != bool(series.histograms), "MUST: samples or histograms, and at least one"
    points = [*series.samples, *series.histograms]
    times = [point.timestamp for point in points]
    assert times == sorted(set(times)), "MUST: the samples of a series are in the order of time"
    assert all(times), "a sample has a time"
    for histogram in series.histograms:
        _check_histogram(histogram)
    for exemplar in series.exemplars:
        assert exemplar.timestamp >= 0


def _check_histogram(histogram):
    """As Prometheus' histogram.Validate does."""
    total = histogram.zero_count_int
    for spans, deltas in (
        (histogram.positive_spans, histogram.positive_deltas),
        (histogram.negative_spans, histogram.negative_deltas),
    ):
        assert sum(span.length for span in spans) == len(deltas), "spans cover the buckets"
        assert all(span.offset >= 0 for span in spans[1:]), "a span does not begin before the last one ends"
        count = 0
        for delta in deltas:
            count += delta
            assert count >= 0, "a bucket count is not negative"
            total += count
    if histogram.sum == histogram.sum:
        assert total == histogram.count_int, "the count is that of the buckets"
    if histogram.schema == -53:
        bounds = list(histogram.custom_values)
        assert bounds == sorted(set(bounds)), "custom bounds ascend"
        assert not histogram.negative_spans
        assert not histogram.zero_count_int
        assert all(bound != float("inf") for bound in bounds)
    else:
        assert -4 <= histogram.schema <= 8
        assert histogram.zero_threshold > 0


def _add(found, labels, series, exemplars, metadata):
    at = found.setdefault(tuple(sorted(labels)), Series())
    at.samples += [
        (
            struct.unpack("<Q", struct.pack("<d", sample.value))[0],
            sample.timestamp,
            getattr(sample, "start_timestamp", 0),
        )
        for sample in series.samples
    ]
    at.histograms += series.histograms
    at.exemplars += exemplars
    at.metadata = metadata
