"""The push messages as protobuf's own runtime knows them: the reference our encoder is read back with."""

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

F = descriptor_pb2.FieldDescriptorProto
MESSAGES = {
    "PushRequest": ["*Stream streams 1"],
    "Stream": ["string labels 1", "*Entry entries 2"],
    "Entry": ["Timestamp timestamp 1", "string line 2", "*Pair metadata 3"],
    "Timestamp": ["int64 seconds 1", "int64 nanos 2"],
    "Pair": ["string name 1", "string value 2"],
}


@pytest.fixture(scope="session")
def push_request():
    file = descriptor_pb2.FileDescriptorProto(name="reference_push.proto", package="reference_loki", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for text in fields:
            kind, field_name, number = text.split()
            label = F.LABEL_REPEATED if kind.startswith("*") else F.LABEL_OPTIONAL
            kind = kind.lstrip("*")
            field = message.field.add(name=field_name, number=int(number), label=label)
            if kind in {"string", "int64"}:
                field.type = {"string": F.TYPE_STRING, "int64": F.TYPE_INT64}[kind]
            else:
                field.type, field.type_name = F.TYPE_MESSAGE, f".reference_loki.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("reference_loki.PushRequest"))
