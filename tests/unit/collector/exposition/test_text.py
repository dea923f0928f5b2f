import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_text

from collector.exposition import NO_TIMESTAMP, PageError, TextPage
from collector.exposition.text import series_labels


def samples(page):
    found = []
    for row in page.samples:
        name, labels = series_labels(page.body, int(row["start"]), int(row["end"]))
        timestamp = None if row["timestamp"] == NO_TIMESTAMP else int(row["timestamp"])
        found.append((name, dict(labels), bits(row["value"]), timestamp))
    return found


def bits(value):
    # prometheus_client reads "-0" as an integer, which has no sign; in Go it has one.
    return "nan" if math.isnan(value) else struct.pack("<d", value or 0.0)


names = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,6}", fullmatch=True)
label_names = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,6}", fullmatch=True)
texts = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), max_size=8
)
numbers = st.one_of(
    st.floats().map(repr),
    st.integers(-(10**25), 10**25).map(str),
    st.sampled_from(["+Inf", "-Inf", "NaN", "1e5", "1.E3", "+.5", "007", "1e-400", "9007199254740993", "1e23"]),
    st.from_regex(r"[-+]?[0-9]{1,20}(\.[0-9]{0,20})?([eE][-+]?[0-9]{1,3})?", fullmatch=True),
)


def escaped(text):
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


@st.composite
def lines(draw):
    labels = draw(st.dictionaries(label_names, texts, max_size=3))
    shown = ",".join(f'{key}="{escaped(value)}"' for key, value in labels.items())
    line = draw(names) + (f"{{{shown}}}" if labels or draw(st.booleans()) else "") + " " + draw(numbers)
    return line + draw(st.sampled_from(["", " 1700000000123", " 0", " -5"]))


@given(st.lists(lines(), max_size=5))
def test_text_agrees_with_prometheus_client(drawn):
    """Names, labels, values and timestamps are those that prometheus_client reads, to the last bit of a number."""
    text = "".join(f"{line}\n" for line in drawn)
    expected = [
        (
            sample.name,
            sample.labels,
            bits(sample.value),
            None if sample.timestamp is None else round(sample.timestamp * 1000),
        )
        for family in parse_text(text)
        for sample in family.samples
    ]
    assert sorted(samples(TextPage(text.encode())), key=repr) == sorted(expected, key=repr)


@given(label_names, st.dictionaries(label_names, texts, max_size=3), st.floats(allow_nan=False), st.integers(0, 2**32))
def test_openmetrics_agrees_with_prometheus_client(name, labels, value, seconds):
    """The same for OpenMetrics, with an exemplar."""
    shown = ",".join(f'{key}="{escaped(text)}"' for key, text in labels.items())
    text = f"# TYPE {name} unknown\n{name}{{{shown}}} {value!r} {seconds}.5\n# EOF\n"
    ((sample,),) = [family.samples for family in parse_open(text)]
    assert samples(TextPage(text.encode(), True)) == [
        (sample.name, sample.labels, bits(sample.value), round(float(sample.timestamp) * 1000))
    ]


def test_reads_metadata():
    """The last one counts; names may be quoted, and escapes are undone."""
    page = TextPage(
        b'# HELP a first\n# HELP  a second\\nline \\\\ x\n# TYPE a counter\n# TYPE "b.c" gauge\n# a comment\n#\n'
    )
    assert page.metadata() == {"a": {"HELP": "second\nline \\ x", "TYPE": "counter"}, "b.c": {"TYPE": "gauge"}}


def test_the_key_of_metadata_changes_with_it_only():
    """The text of samples does not matter."""
    one, other = TextPage(b"# TYPE a counter\na 1\n"), TextPage(b"# TYPE a counter\na 2\nb 3\n")
    assert one.metadata_key == other.metadata_key
    assert one.metadata_key != TextPage(b"# TYPE a gauge\na 1\n").metadata_key


def test_reads_quoted_names():
    """A metric whose name is within the braces, and labels with any name."""
    page = TextPage('{"größe.\\"x\\"","a.b"="1" , c="2",} 3\n'.encode())
    assert samples(page) == [('größe."x"', {"a.b": "1", "c": "2"}, bits(3.0), None)]


def test_reads_exemplars():
    """Their labels, value and time."""
    page = TextPage(b'a_total{x="#"} 1 2.5 # {t="1"} 0.5 3\na_total 4 # {} 7\n# EOF\n', True)
    assert page.samples["exemplar"].tolist() == [0, 1]
    assert page.exemplars["value"].tolist() == [0.5, 7]
    assert page.exemplars["timestamp"].tolist() == [3000, NO_TIMESTAMP]


@pytest.mark.parametrize(
    ("text", "openmetrics", "line"),
    [
        ("a 1\nb", False, 2),
        ("a{ 1", False, 1),
        ('a{b="c} 1', False, 1),
        ('a{b="c" d="e"} 1', False, 1),
        ('{b="c"} 1', False, 1),
        ('a{"b"} 1', False, 1),
        ("a 1 2 3", False, 1),
        ("a 1 2.5", False, 1),
        ("a 1x", False, 1),
        ("a 0x10", False, 1),
        ("a 1_0", False, 1),
        ("a .", False, 1),
        ("a 1e", False, 1),
        ("a", False, 1),
        ("1a 1", False, 1),
        ("a 1 # {} 1", False, 1),
        ("# TYPE a thing", False, 1),
        ("# TYPE a info", False, 1),
        ("a 1\n", True, 2),
        ("a 1\n# EOF\nb 1\n", True, 3),
        ("a 1 NaN\n# EOF", True, 1),
        ("a 1 # {b} 1\n# EOF", True, 1),
        ("a 1 # {} 1 2 3\n# EOF", True, 1),
        ("\na " + "1" * 600, False, 2),
    ],
)
def test_an_invalid_line_is_named(text, openmetrics, line):
    """The whole page is refused."""
    with pytest.raises(PageError, match=f"^line {line}: "):
        TextPage(text.encode(), openmetrics)


def test_invalid_utf8_is_refused():
    """As in Prometheus."""
    with pytest.raises(PageError, match="UTF-8"):
        TextPage(b'a{b="\xff"} 1\n')


@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_are_read_or_refused(body, openmetrics):
    """Nothing else happens, and what is read can be decoded."""
    try:
        page = TextPage(body, openmetrics)
    except PageError:
        return
    samples(page)
    page.metadata()
