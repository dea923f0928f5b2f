"""The remote-write messages as protobuf's own runtime knows them: the reference our encoder is read back with."""

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

F = descriptor_pb2.FieldDescriptorProto
TYPES = {
    "double": F.TYPE_DOUBLE, "int64": F.TYPE_INT64, "uint64": F.TYPE_UINT64, "sint32": F.TYPE_SINT32, "sint64": F.TYPE_SINT64,
    "uint32": F.TYPE_UINT32, "string": F.TYPE_STRING, "int32": F.TYPE_INT32,
}  # fmt: skip
MESSAGES = {
    "WriteRequest": ["*TimeSeries timeseries 1", "*MetricMetadata metadata 3"],
    "MetricMetadata": ["int32 type 1", "string metric_family_name 2", "string help 4", "string unit 5"],
    "TimeSeries": ["*Label labels 1", "*Sample samples 2", "*Exemplar exemplars 3", "*Histogram histograms 4"],
    "Label": ["string name 1", "string value 2"],
    "Sample": ["double value 1", "int64 timestamp 2"],
    "Exemplar": ["*Label labels 1", "double value 2", "int64 timestamp 3"],
    "BucketSpan": ["sint32 offset 1", "uint32 length 2"],
    "Histogram": [
        "uint64 count_int 1", "double sum 3", "sint32 schema 4", "double zero_threshold 5", "uint64 zero_count_int 6",
        "*BucketSpan negative_spans 8", "*sint64 negative_deltas 9", "*BucketSpan positive_spans 11", "*sint64 positive_deltas 12",
        "int32 reset_hint 14", "int64 timestamp 15",
    ],
}  # fmt: skip


def _write_request():
    file = descriptor_pb2.FileDescriptorProto(name="reference_prompb.proto", package="reference", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for text in fields:
            kind, field_name, number = text.split()
            repeated, kind = kind.startswith("*"), kind.lstrip("*")
            field = message.field.add(
                name=field_name, number=int(number), label=F.LABEL_REPEATED if repeated else F.LABEL_OPTIONAL
            )
            if kind in TYPES:
                field.type = TYPES[kind]
            else:
                field.type, field.type_name = F.TYPE_MESSAGE, f".reference.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("reference.WriteRequest"))


@pytest.fixture(scope="session")
def write_request():
    return _write_request()
