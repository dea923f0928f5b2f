"""Endpoints in gRPC's and the Collector's syntax."""

import socket

import pytest

from collector.transport.grpc.target import parse_target, resolve, split_scheme
from collector.transport.http2.client import Address


@pytest.mark.parametrize(
    ("text", "addresses", "authority"),
    [
        ("127.0.0.1:4317", [Address("127.0.0.1", 4317)], "127.0.0.1:4317"),
        ("[::1]:4317", [Address("::1", 4317)], "[::1]:4317"),
        ("[::1]", [Address("::1", 443)], "[::1]"),
        ("::1", [Address("::1", 443)], "::1"),
        ("dns:///10.0.0.1:1", [Address("10.0.0.1", 1)], "10.0.0.1:1"),
        ("passthrough:///10.0.0.1:1", [Address("10.0.0.1", 1)], "10.0.0.1:1"),
        ("ipv4:10.0.0.1:1,10.0.0.2", [Address("10.0.0.1", 1), Address("10.0.0.2", 443)], "10.0.0.1:1"),
        ("ipv6:[::1]:1,[::2]:2", [Address("::1", 1), Address("::2", 2)], "[::1]:1"),
        ("unix:a/b.sock", [Address(path="a/b.sock")], "localhost"),
        ("unix:///a/b.sock", [Address(path="/a/b.sock")], "localhost"),
        ("unix-abstract:name", [Address(path="\0name")], "localhost"),
    ],
)
async def test_what_needs_no_lookup(text, addresses, authority):
    """Addresses and sockets need no lookup."""
    target = parse_target(text)
    assert (list(target.addresses), target.authority, target.text) == (addresses, authority, text)
    assert list(await resolve(target)) == addresses


@pytest.mark.parametrize(
    ("text", "host", "port", "authority"),
    [
        ("backend:4317", "backend", 4317, "backend:4317"),
        ("backend", "backend", 443, "backend"),
        ("dns:///backend:1", "backend", 1, "backend:1"),
        ("dns:backend:1", "backend", 1, "backend:1"),
        ("passthrough:///backend:1", "backend", 1, "backend:1"),
    ],
)
def test_names_are_looked_up(text, host, port, authority):
    """A name without a port is looked up with gRPC's default port."""
    target = parse_target(text)
    assert (target.host, target.port, target.authority, target.addresses) == (host, port, authority, ())


@pytest.mark.parametrize(
    "text",
    [
        "", ":1", "a b:1", "h:0", "h:65536", "h:x", "h:-1", "[::1:4317", "[::1]4317", "[zz]:1", "a:b:c", "user@h:1", "h/path:1",
        "unix:", "unix://", "unix:///", "unix://host/x", "dns://8.8.8.8/h:1", "ipv4:h:1", "ipv4:[::1]:1", "ipv6:10.0.0.1:1", "ipv4:", "b\u00fccher:1",
    ],
)  # fmt: skip
def test_what_names_no_target_is_refused_with_the_fix(text):
    """The message quotes it and says what is expected."""
    with pytest.raises(ValueError, match=r"is not (a )?valid( Unix socket)?: "):
        parse_target(text)


def test_schemes_are_the_collectors():
    """They decide whether to use TLS, and are not part of the target."""
    assert split_scheme("http://h:1/") == ("h:1", False)
    assert split_scheme("https://h:1") == ("h:1", True)
    assert split_scheme("h:1") == ("h:1", False)


async def test_a_lookup_gives_each_address_once(monkeypatch):
    """Addresses keep the order in which the system returns them."""
    seen = ["10.0.0.2", "10.0.0.1", "10.0.0.2"]
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 1)) for host in seen]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert await resolve(parse_target("backend:1")) == (Address("10.0.0.2", 1), Address("10.0.0.1", 1))
