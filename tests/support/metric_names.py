"""Names and units of metrics that are awkward to translate, and the kinds of metrics that get different suffixes."""

from collector.prometheus import UP_DOWN_COUNTER

__all__ = ["KINDS", "NAMES_AND_UNITS"]

KINDS = {
    "gauge": "gauge",
    "counter": "counter",
    "up_down_counter": UP_DOWN_COUNTER,
    "histogram": "histogram",
    "exponential_histogram": "histogram",
    "summary": "summary",
}
"""Kinds of OTLP metrics, with what ``metric_name`` is told of them."""

_NAMES = (
    "http.server.duration", "foo.total", "foo_total", "total", "total.foo", "foo.total.bar", "a_per_second",
    "a.per.second", "foo.ratio", "ratio", "foo_ratio_total", "seconds", "foo_seconds", "foo.seconds.total", "foo.bytes",
    "a..b__c", "_lead", "__lead", "trail_", "trail__.", "1st", "9", "größe", "温度", "é1", "ключ_2", "a:b", "a::b",
    "a.:.b", "foo bar", "a-b/c", "", "_", "___", ".", "totals", "xtotal", "x_per_second_total", "foototal",
    "foo.seconds_per_second", "bytes_per_second", "per_second", "x.count", "x_ratio", "1_total", "a\tb", "a\nb", "a{b}",
    "UPPER.Case", "foo.milliseconds", "total_total", "a_total_seconds", "foo_per_", "foo_",
)  # fmt: skip
_UNITS = (
    "", "1", "s", "ms", "By", "By/s", "{x}", "{x}/s", "By/{x}", "1/s", "%", "Cel", "TiBy", "foo bar", "foo/bar", "s/",
    "/s", "/", " s ", "s / s", "m/m", "°C", "k!", "!", "a/!", "bits_", "_x", "{", "}", "[deg]", "m/s2", "KiBy/h",
    "a__b", "mo", "w", "per_s", "m/per_x", "s/s/s", "{a}s", "1/min", "1 ", "count", "total", "ratio", "é", "a/b_",
    "a!/b!", "seconds", "10*3.m",
)  # fmt: skip
_EVERY_UNIT = ("foo.total", "x.count", "a_per_second", "温度", "total", "foo.ratio")

NAMES_AND_UNITS = [
    (name, unit)
    for i, name in enumerate(_NAMES)
    for j, unit in enumerate(_UNITS)
    if name in _EVERY_UNIT or (7 * i + 3 * j) % 13 == 0
]
"""Every unit with some names, and every name with some units."""
