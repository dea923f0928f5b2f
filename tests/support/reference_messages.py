"""Protobuf messages as protobuf's own runtime knows them: the reference for tests of hand-written encoders."""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["message_class"]

_FIELD = descriptor_pb2.FieldDescriptorProto


def message_class(name, messages):
    """The class of the message ``name``.

    ``messages`` has the fields of each message by its name, as ``"type field_name number"``; an asterisk before the
    type makes the field repeated, and a type that is not a scalar is another message.
    """
    package = f"reference_{name.lower()}"
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for message_name, fields in messages.items():
        message = file.message_type.add(name=message_name)
        for text in fields:
            type_name, field_name, number = text.split()
            label = _FIELD.LABEL_REPEATED if type_name.startswith("*") else _FIELD.LABEL_OPTIONAL
            type_name = type_name.lstrip("*")
            field = message.field.add(name=field_name, number=int(number), label=label)
            if type_name in messages:
                field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{package}.{type_name}"
            else:
                field.type = _FIELD.Type.Value(f"TYPE_{type_name.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
