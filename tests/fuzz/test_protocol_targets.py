"""The fuzz targets of the protocols hold for a fixed set of damaged streams: a smoke test without atheris."""

import importlib.util
import random
from pathlib import Path

import pytest

HTTP2 = (b"\0", b"\xff", b"\0\0\0\4\0\0\0\0\0", b"\0\0\4\3\0\0\0\0\1\0\0\0\x08")
PAGES = (b"{", b"}", b'"', b"\n", b"\\", b" # {", b"\n# EOF\n", b"\xff", b"NaN", b",", b"=")
HTTP1 = (b"\r\n", b"\0", b"0", b" ", b":", b"\r\nContent-Length: 1")


def target(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "streams", "inserted", "first"),
    [
        ("fuzz_grpc", "http2_streams", HTTP2, range(256)),
        ("fuzz_session", "http2_streams", HTTP2, range(64)),
        ("fuzz_session", "http2_answers", HTTP2, range(64, 128)),
        ("fuzz_http1", "http1_streams", HTTP1, range(256)),
        ("fuzz_exposition", "pages", PAGES, range(2)),
    ],
)
def test_target_holds(name, streams, inserted, first):
    """Bit flips, cuts, insertions and joints of streams violate no property."""
    run = target(name).test_one_input
    rng = random.Random(20240607)
    seeds = getattr(target("corpus"), streams)()
    for _ in range(1500):
        stream = bytearray(rng.choice(seeds) + rng.choice([b"", *seeds]))
        for _ in range(rng.choice((0, 1, 1, 2))):
            at = rng.randrange(len(stream) + 1)
            kind = rng.randrange(4)
            if kind == 0 and at < len(stream):
                stream[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                del stream[at : at + rng.choice((1, 4, 40))]
            elif kind == 2:
                stream[at:at] = rng.choice(inserted)
            else:
                stream[at:at] = stream[rng.randrange(len(stream) + 1) :][:60]
        run(bytes([rng.choice(first)]) + bytes(stream))
