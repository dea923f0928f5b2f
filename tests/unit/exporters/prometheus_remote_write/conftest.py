"""The remote-write messages as the reference with which the output of the encoder is read."""

import pytest
from reference_messages import message_class

MESSAGES = {
    "WriteRequest": ["*TimeSeries timeseries 1", "*MetricMetadata metadata 3"],
    "MetricMetadata": ["int32 type 1", "string metric_family_name 2", "string help 4", "string unit 5"],
    "TimeSeries": ["*Label labels 1", "*Sample samples 2", "*Exemplar exemplars 3", "*Histogram histograms 4"],
    "Label": ["string name 1", "string value 2"],
    "Sample": ["double value 1", "int64 timestamp 2"],
    "Exemplar": ["*Label labels 1", "double value 2", "int64 timestamp 3"],
    "BucketSpan": ["sint32 offset 1", "uint32 length 2"],
    "Histogram": [
        "uint64 count_int 1",
        "double sum 3",
        "sint32 schema 4",
        "double zero_threshold 5",
        "uint64 zero_count_int 6",
        "*BucketSpan negative_spans 8",
        "*sint64 negative_deltas 9",
        "*BucketSpan positive_spans 11",
        "*sint64 positive_deltas 12",
        "int32 reset_hint 14",
        "int64 timestamp 15",
    ],
}


@pytest.fixture(scope="session")
def write_request():
    return message_class("WriteRequest", MESSAGES)
