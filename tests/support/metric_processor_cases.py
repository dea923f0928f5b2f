"""The Collector's metric processors and ours over the same requests.

``tests/data/metrics_transform_cases.yaml`` has transformations; one with ``difference`` differs from the Collector on
purpose. ``tests/data/metrics_transform_golden.json`` has what the Collector made of each:
``python tests/support/metric_processor_cases.py PROGRAM`` records it, with the program that ``make backends`` builds as
``metric_processors``.
"""

import base64
import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path

from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from ruamel.yaml import YAML

DATA = Path(__file__).parents[1] / "data"
CASES, GOLDEN = DATA / "metrics_transform_cases.yaml", DATA / "metrics_transform_golden.json"
START = 1_700_000_000_000_000_000


def cases():
    """(name, transforms, difference) of each case; the name is its text."""
    found = YAML(typ="safe").load(CASES.read_text(encoding="utf-8"))
    return [(json.dumps(case["transforms"]), case["transforms"], case.get("difference", "")) for case in found]


def golden():
    """What the Collector made of each case: a digest, or ``refused``."""
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


def data():
    """A request with metrics of all types in several scopes."""
    rng = random.Random(3)
    request = ExportMetricsServiceRequest()
    for number in range(2):
        resource = request.resource_metrics.add()
        resource.resource.attributes.add(key="service.name").value.string_value = f"shop-{number}"
        for name in ("one", "two")[: 2 - number]:
            scope = resource.scope_metrics.add()
            scope.scope.name = name
            for metric in ("system.cpu.usage", "system.cpu.time", "system.memory.usage"):
                numbers(scope.metrics.add(name=metric, unit="s", description=f"the {metric}"), metric, rng)
            for metric, temporality in (("http.Get.duration", 2), ("http.Put.duration", 2), ("rpc.duration", 1)):
                histogram(scope.metrics.add(name=metric, unit="ms"), temporality, rng)
            for metric in ("expo.a", "expo.b"):
                exponential(scope.metrics.add(name=metric, unit="ms"), rng)
            summary = scope.metrics.add(name="gc.pause").summary.data_points.add(time_unix_nano=START, count=3, sum=4)
            summary.quantile_values.add(quantile=0.5, value=1)
            summary.attributes.add(key="state").value.string_value = "idle"
    return request


def labelled(point, rng, time=START):
    point.time_unix_nano = time
    point.start_time_unix_nano = START - rng.choice((1, 2)) * 10**9
    point.attributes.add(key="state").value.string_value = rng.choice(("user", "system", "idle"))
    point.attributes.add(key="cpu").value.string_value = rng.choice("01")
    if rng.random() < 0.3:
        point.attributes.add(key="core").value.int_value = rng.choice((1, 2))
    return point


def numbers(metric, name, rng):
    if name == "system.memory.usage":
        points = metric.gauge.data_points
    else:
        metric.sum.aggregation_temporality, metric.sum.is_monotonic = 2, True
        points = metric.sum.data_points
    for _ in range(12):
        point = labelled(points.add(), rng)
        if name == "system.cpu.usage":
            point.as_double = rng.choice((0.5, 1.25, 3.0, -2.0, 1e18))
        else:
            point.as_int = rng.randrange(-5, 100)


def exemplars(point, rng):
    exemplar = point.exemplars.add(time_unix_nano=START)
    if rng.random() < 0.5:
        exemplar.as_int = rng.randrange(9)
    else:
        exemplar.as_double = 0.5


def histogram(metric, temporality, rng):
    metric.histogram.aggregation_temporality = temporality
    for _ in range(8):
        point = labelled(metric.histogram.data_points.add(), rng)
        point.explicit_bounds.extend([1.0, 2.0] if rng.random() < 0.8 else [1.0, 3.0])
        point.bucket_counts.extend(rng.randrange(4) for _ in range(3))
        point.count = sum(point.bucket_counts)
        point.sum = 0.5 * point.count
        if rng.random() < 0.7:
            point.min, point.max = rng.choice((0.25, 0.5)), rng.choice((2.0, 4.0))
        exemplars(point, rng)


def exponential(metric, rng):
    metric.exponential_histogram.aggregation_temporality = 2
    for _ in range(8):
        point = labelled(metric.exponential_histogram.data_points.add(), rng)
        point.scale = rng.choice((1, 2))
        for side in (point.positive, point.negative):
            if rng.random() < 0.8:  # a fixed offset: the Collector adds up different ones wrongly
                side.offset = 300
                side.bucket_counts.extend(rng.choice((1, 2, 200)) for _ in range(rng.randrange(1, 5)))
        point.zero_count = rng.randrange(3)
        point.zero_threshold = 0.25
        point.count = point.zero_count + sum(point.positive.bucket_counts) + sum(point.negative.bucket_counts)
        point.sum = 0.5 * point.count
        if rng.random() < 0.7:
            point.min, point.max = rng.choice((0.25, 0.5)), rng.choice((2.0, 4.0))
        exemplars(point, rng)


def run_program(program, requests):
    """The answers of the program to requests of the form that its source describes."""
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    done = subprocess.run([program], input=lines, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def encoded(message):
    """A message for the program."""
    return base64.b64encode(message.SerializeToString()).decode()


def theirs(program, transforms):
    """What the Collector makes of each list of transformations: the text of the result, or ``refused``."""
    requests = [
        {"processor": "metricstransform", "config": {"transforms": item}, "data": [encoded(data())]}
        for item in transforms
    ]
    return [
        "refused" if "invalid" in answer else shown(base64.b64decode(answer["data"][0]))
        for answer in run_program(program, requests)
    ]


def shown(wire):
    """The content of a request as text: the order of metrics, points, attributes and exemplars does not count."""
    lines = []
    for resource in ExportMetricsServiceRequest.FromString(wire).resource_metrics:
        holder = sorted(attribute_lines(resource.resource))
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                data_ = getattr(metric, kind)
                points = sorted(point_text(point) for point in data_.data_points)
                del data_.data_points[:]
                head = json_format.MessageToJson(metric, indent=None)
                lines.append(f"{holder} {scope.scope.name} {head}\n  " + "\n  ".join(points))
    return "\n".join(sorted(lines))


def attribute_lines(message):
    return [json_format.MessageToJson(entry, indent=None) for entry in message.attributes]


def point_text(point):
    attributes = sorted(attribute_lines(point))
    found = sorted(json_format.MessageToJson(item, indent=None) for item in getattr(point, "exemplars", ()))
    for name in ("attributes", "exemplars"):
        point.ClearField(name) if hasattr(point, name) else None
    fields = json_format.MessageToDict(point)
    for side in ("positive", "negative"):
        if side in fields and not fields[side].get("bucketCounts"):
            del fields[side]
    return f"{attributes} {json.dumps(fields, sort_keys=True)} {found}"


def digest(text):
    """A short form of it."""
    return text if text == "refused" else hashlib.sha256(text.encode()).hexdigest()[:16]


if __name__ == "__main__":
    listed = cases()
    results = theirs(sys.argv[1], [transforms for _, transforms, _ in listed])
    record = {name: digest(text) for (name, _, _), text in zip(listed, results, strict=True)}
    GOLDEN.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
