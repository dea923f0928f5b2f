"""Runs log operators on lines, and returns plain records."""

import json

from log_operator_cases import CASES

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


def run_case(name, path="/var/log"):
    """The OTLP/JSON requests that the lines of a case become, as file_log reads them from a file in that folder."""
    operators, lines, file_log = CASES[name]
    attributes = {"log.file.name": f"{name}.log"}
    if file_log.get("include_file_path"):
        attributes["log.file.path"] = f"{path}/{name}.log"
    pipeline = pipeline_of(operators)
    texts = [text for line in lines if (text := line.strip())]
    return [to_json(logs) for logs in (*pipeline.process(block_of(texts, attributes=[attributes])), *pipeline.flush())]


def comparable(requests, name):
    """The records of OTLP/JSON requests as sorted texts, without what differs from run to run."""
    found = []
    for text in requests:
        for resource in json.loads(text).get("resourceLogs", ()):
            for scope in resource.get("scopeLogs", ()):
                for record in scope.get("logRecords", ()):
                    record.pop("observedTimeUnixNano", None)
                    if "rfc3164" in name or "without_priority" in name:  # their times have no year
                        record.pop("timeUnixNano", None)
                    if not record.get("body"):
                        record.pop("body", None)
                    plain = _plain(record)
                    plain["resource"] = _plain(resource.get("resource", {}))
                    plain["scope"] = scope.get("scope", {}).get("name", "")
                    if "log.file.path" in plain.get("attributes", {}):
                        plain["attributes"]["log.file.path"] = "…"
                    found.append(json.dumps(plain, sort_keys=True, ensure_ascii=False))
    return sorted(found)


def _plain(value):
    """A value of OTLP/JSON with its attributes as a mapping."""
    if isinstance(value, list):
        if value and all(isinstance(item, dict) and item and set(item) <= {"key", "value"} for item in value):
            return {item.get("key", ""): _plain(item.get("value", {})) for item in value}
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        if set(value) == {"doubleValue"}:
            return {"doubleValue": float(value["doubleValue"])}
        return {key: _plain(item) for key, item in value.items() if item not in ([], {}, None)} or None
    return value
