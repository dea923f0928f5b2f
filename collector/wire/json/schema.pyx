"""The messages and fields of the OTLP requests, read once from the message descriptors of opentelemetry-proto."""

from collector.wire.proto cimport WIRE_FIXED32, WIRE_FIXED64, WIRE_LEN, WIRE_VARINT

__all__ = ["NESTING_MAX"]

# Brackets that a body may nest. 30 nested AnyValues need four each; deeper bodies are refused before a parser recurses.
NESTING_MAX = MAX_NESTING

# By FieldDescriptor.type of protobuf's descriptor.proto.
cdef dict KINDS = {
    1: K_DOUBLE,
    3: K_INT64,
    4: K_UINT64,
    5: K_INT32,
    6: K_FIXED64,
    7: K_FIXED32,
    8: K_BOOL,
    9: K_TEXT,
    11: K_MESSAGE,
    12: K_BYTES,
    13: K_UINT32,
    14: K_ENUM,
    16: K_SFIXED64,
    17: K_SINT32,
}
# The bytes fields that are hex in JSON, and their length.
cdef dict ID_BYTES = {"trace_id": 16, "span_id": 8, "parent_span_id": 8}
cdef dict requests = {}


cdef Message request_schema(str signal):
    """The schema of a signal's request; it is read from the descriptors on first use."""
    if not requests:
        from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        seen = {}
        requests["logs"] = message_schema(ExportLogsServiceRequest.DESCRIPTOR, seen)
        requests["metrics"] = message_schema(ExportMetricsServiceRequest.DESCRIPTOR, seen)
        requests["traces"] = message_schema(ExportTraceServiceRequest.DESCRIPTOR, seen)
    return requests[signal]


cdef Message message_schema(descriptor, dict seen):
    cdef Message message
    cdef JsonField field
    if descriptor.full_name in seen:
        return seen[descriptor.full_name]
    message = seen[descriptor.full_name] = Message()
    message.by_name = {}
    message.by_number = [None] * (max([entry.number for entry in descriptor.fields], default=0) + 1)
    if len(descriptor.fields) > MAX_FIELDS:
        raise RuntimeError(f"{descriptor.full_name} has {len(descriptor.fields)} fields; at most {MAX_FIELDS} fit")
    for index, entry in enumerate(descriptor.fields):
        field = JsonField()
        field.index = index
        field.kind = KINDS[entry.type]
        field.id_bytes = 0
        if field.kind == K_BYTES and entry.name in ID_BYTES:
            field.kind = K_HEX
            field.id_bytes = ID_BYTES[entry.name]
        field.wire_type = wire_type_of(field.kind)
        field.tag = entry.number << 3 | field.wire_type
        field.packed_tag = entry.number << 3 | WIRE_LEN
        field.repeated = entry.is_repeated
        field.presence = entry.has_presence
        field.key = b'"' + entry.json_name.encode() + b'":'
        if field.kind == K_ENUM:
            field.names = {name: value.number for name, value in entry.enum_type.values_by_name.items()}
        if field.kind == K_MESSAGE:
            field.message = message_schema(entry.message_type, seen)
        message.by_number[entry.number] = field
        message.by_name[entry.name] = message.by_name[entry.json_name] = field
    return message


cdef int wire_type_of(int kind):
    if kind == K_TEXT or kind == K_BYTES or kind == K_HEX or kind == K_MESSAGE:
        return WIRE_LEN
    if kind == K_FIXED64 or kind == K_SFIXED64 or kind == K_DOUBLE:
        return WIRE_FIXED64
    return WIRE_FIXED32 if kind == K_FIXED32 else WIRE_VARINT
