import pytest

from config.errors import ConfigErrors
from config.references import read_file
from config.resolve import resolve
from config.yaml import plain

ENV = {
    "X": "0123",
    "Y": "${X}",
    "LIST": "[1, {a: b}]",
    "TEXT": "a b",
    "LOOP": "${LOOP}",
    "ESCAPED": "$${X}",
    "QUOTED": '"q"',
    "TAB": "a:\n\t- b",
    "BOMB": "${BOMB}${BOMB}",
}


def resolved(*texts, sets=(), environ=ENV, **files):
    """The document that the texts make as files /0, /1 …"""
    names = {f"/{index}": text for index, text in enumerate(texts)} | {f"/{name}": text for name, text in files.items()}

    def read(path):
        if path not in names:
            raise FileNotFoundError(2, "No such file or directory")
        return names[path]

    return resolve([f"/{index}" for index in range(len(texts))], sets, environ=environ, read=read)


def value(text, **more):
    """What ``text`` expands to, as (value, original text)."""
    node = resolved(f"v: {text}\n", **more).root.entries["v"].node
    return getattr(node, "value", plain(node) if not hasattr(node, "value") else None), getattr(node, "text", None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${env:X}", (83, "0123")),
        ("${X}", (83, "0123")),
        ('"${X}"', (83, "0123")),
        ("${Y}", (83, "0123")),
        ("x${X}y", ("x0123y", None)),
        ("${env:NOT_SET:-5s}", ("5s", "5s")),
        ("${NOT_SET:-010}", (8, "010")),
        ("${NOT_SET:-}", (None, "")),
        ("${NOT_SET}", (None, "")),
        ("a${NOT_SET}b", ("ab", None)),
        ("${env:${env:NOT_SET:-X}}", (83, "0123")),
        ("${env:NOT_SET:-${env:TEXT}}", ("a b", "a b")),
        ("$${env:X}", ("${env:X}", None)),
        ("$$$${X}", ("$${X}", None)),
        ("$$$${X} $$${X}", ("$${X} $0123", None)),
        ("$X", ("$X", None)),
        ("a}${X}", ("a}0123", None)),
        ("${ESCAPED}", ("${X}", "${X}")),
        ("${QUOTED}", ('"q"', '"q"')),
        ("${TAB}", ("a:\n\t- b", "a:\n\t- b")),
        ("${yaml:true}", (True, "true")),
        ("${file:/one}", ("line", "line")),
    ],
)
def test_references_expand(text, expected):
    """A reference is typed by YAML, keeps its original text, and can stand inside a string."""
    assert value(text, one="line\n") == expected


def test_files_and_lists_are_inserted_with_their_own_references_expanded():
    """A whole-value reference may stand for a mapping or a list."""
    root = resolved("f: ${file:/part}\nl: ${LIST}\n", part="a: ${X}\nb: [x]\n").root
    assert plain(root) == {"f": {"a": 83, "b": ["x"]}, "l": [1, {"a": "b"}]}
    assert str(root.entries["f"].node.entries["b"].key_position) == "/part:2:1"
    assert str(root.entries["l"].node.items[0].position) == "/0:2:4"


def test_mappings_and_lists_keep_their_text():
    """Text that happens to be a mapping or a list can be used as text, also as a part of other text."""
    root = resolved(
        "l: ${LIST}\nt: x${LIST}\nf: ${file:/part}\nr: ${MAP}\n", part="a:\n", environ=ENV | {"MAP": "{a: '${X}'}"}
    ).root
    nodes = {key: entry.node for key, entry in root.entries.items()}
    assert nodes["l"].text == "[1, {a: b}]"
    assert nodes["t"].value == "x[1, {a: b}]"
    assert nodes["f"].text == "a:"
    assert (plain(nodes["r"]), nodes["r"].text) == ({"a": 83}, None)  # its text has references of its own


def test_merging_is_deep_and_replaces_lists():
    """Mappings merge, later wins; lists are replaced; positions stay those of the file that won."""
    root = resolved("a: {x: 1, y: [1, 2]}\nb: 1\n", "a:\n  y: [3]\n  z: 4\n").root
    assert plain(root) == {"a": {"x": 1, "y": [3], "z": 4}, "b": 1}
    assert root.entries["a"].node.entries["z"].key_position.file == "/1"
    assert root.entries["a"].node.entries["x"].key_position.file == "/0"


def test_a_bare_key_wipes():
    """A null in a later file removes what was there before."""
    assert plain(resolved("processors: {batch: {}}\n", "processors:\n").root) == {"processors": None}


def test_set_comes_last_and_is_yaml():
    """--set is applied after all files; its value is YAML; `::` and `.` both separate keys."""
    root = resolved("a: {b: 1, c: [1]}\n", sets=["a.b=010", "a::c=[2, x]", "n.e.w={k: yes}", "a.t=1=2"]).root
    assert plain(root) == {"a": {"b": 8, "c": [2, "x"], "t": "1=2"}, "n": {"e": {"w": {"k": "yes"}}}}
    assert str(root.entries["a"].node.entries["b"].node.position) == "--set a.b"


def test_other_sources():
    """env:NAME and yaml:TEXT are sources too; keys at the top may be joined by `::`."""
    root = resolve(["env:CONFIG", "yaml:a::b::c: 2"], [], {"CONFIG": "a: {b: {c: 1, d: 1}}"}).root
    assert plain(root) == {"a": {"b": {"c": 2, "d": 1}}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${LOOP}", "refers to itself"),
        ("${BOMB}", "refers to itself"),
        ("${file:/missing}", "cannot read /missing: No such file or directory"),
        ("${file:/me}", "${file:/me} nests files more than 20 levels deep"),
        ("${file:/many}", "the value needs more than 1000 recursive expansions"),
        ("${s3:bucket}", "the scheme 's3' is not supported; the supported schemes are env, file, yaml"),
        ("${1X}", "'1X' is not a valid name of an environment variable"),
        ("${file:/broken}", "/broken:1:9: v: invalid YAML"),
    ],
)
def test_references_that_cannot_expand(text, message):
    """Each is an error at the place of the reference, found in bounded time."""
    with pytest.raises(ConfigErrors) as caught:
        resolved(f"v: {text}\n", broken="a: [1, 2", me="- ${file:/me}\n- ${file:/me}\n", many="- ${X}\n" * 1100)
    assert message in str(caught.value)
    assert len(caught.value.errors) == 1


def test_all_errors_at_once():
    """Every file that cannot be read or parsed and every malformed --set is reported in one go."""
    with pytest.raises(ConfigErrors) as caught:
        resolve(["/missing", "ftp:x", "env:NOT_SET"], ["novalue", "a..b=1", "a=[", "b=2"], environ={}, read=read_file)
    messages = [str(error) for error in caught.value.errors]
    assert len(messages) == 6
    assert any("the equal sign is missing" in message and message.startswith("--set novalue") for message in messages)


def test_unset_variables_are_noted():
    """A variable that is not set is null, with a note that names a variable that was probably meant."""
    document = resolved("v: ${env:HOST_NAM}\n", environ={"HOST_NAME": "h"})
    assert [str(note) for note in document.warnings] == [
        (
            "/0:1:4: v: the environment variable HOST_NAM is not set, so the value is null "
            "(did you mean 'HOST_NAME'?); set the variable or provide a default: ${env:HOST_NAM:-default}"
        )
    ]


def test_a_source_is_needed():
    """Loading without any source is an error."""
    with pytest.raises(ConfigErrors, match="no configuration was specified; specify at least one --config"):
        resolve([], [], {})


def test_the_top_must_be_a_mapping():
    """A list or text at the top is refused."""
    with pytest.raises(ConfigErrors, match="/0:1:1: a configuration must be a mapping of sections, got a list"):
        resolved("- a\n")


def test_read_file_refuses_binary_files(tmp_path):
    """Bytes that are not valid UTF-8 are refused, with their offset."""
    (tmp_path / "f").write_bytes(b"a: \xff")
    with pytest.raises(ValueError, match=r"not valid UTF-8 \(at byte 3\)"):
        read_file(str(tmp_path / "f"))
