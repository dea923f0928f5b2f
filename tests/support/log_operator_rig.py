"""Runs log operators on lines, and returns plain records."""

import json

from collector.log_operators import Block, Pipeline, operator_configs
from collector.model import to_json


class Report:
    """Collects what operators report."""

    def __init__(self):
        self.failures = []
        self.drops = {}

    def failed(self, operator, reason, count, *, is_logged):
        self.failures.append((operator, reason, count, is_logged))

    def dropped(self, reason, count):
        self.drops[reason] = self.drops.get(reason, 0) + count


def pipeline_of(operators, **rest):
    return Pipeline(operator_configs(operators), report=rest.pop("report", None) or Report(), **rest)


def block_of(lines, **rest):
    texts = [line if isinstance(line, bytes) else line.encode() for line in lines]
    return Block.of_texts(texts, observed_time_unix_nano=rest.pop("observed_time_unix_nano", 1), **rest)


def value_of(value):
    """A value of OTLP/JSON as a Python object."""
    if not value:
        return None
    ((kind, content),) = value.items()
    if kind == "kvlistValue":
        return {item.get("key", ""): value_of(item.get("value")) for item in content.get("values", ())}
    if kind == "arrayValue":
        return [value_of(item) for item in content.get("values", ())]
    return int(content) if kind == "intValue" else float(content) if kind == "doubleValue" else content


def records_of(batches):
    """One dict per record: body, attributes, resource, scope, and the fields that are set."""
    return [
        {
            "body": value_of(record.get("body")),
            "attributes": mapping_of(record),
            "resource": mapping_of(resource.get("resource", {})),
            "scope": scope.get("scope", {}).get("name", ""),
            "time": int(record.get("timeUnixNano", 0)),
            "severity": record.get("severityNumber", 0),
            "severity_text": record.get("severityText", ""),
            "trace_id": record.get("traceId", ""),
            "span_id": record.get("spanId", ""),
            "flags": record.get("flags", 0),
        }
        for batch in batches
        for resource in json.loads(to_json(batch)).get("resourceLogs", ())
        for scope in resource["scopeLogs"]
        for record in scope["logRecords"]
    ]


def mapping_of(holder):
    return {item.get("key", ""): value_of(item.get("value")) for item in holder.get("attributes", ())}


def run(operators, lines, *, report=None, **block):
    """The records that the lines become, with what is held at the end."""
    pipeline = pipeline_of(operators, report=report)
    return records_of([*pipeline.process(block_of(lines, **block)), *pipeline.flush()])
