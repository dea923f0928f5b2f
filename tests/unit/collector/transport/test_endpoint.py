"""Endpoints and local addresses."""

import errno
import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.transport.endpoint import Endpoint, LocalAddresses, interface_addresses


@pytest.mark.parametrize(
    ("text", "endpoint", "written"),
    [
        ("localhost:4317", Endpoint("localhost", 4317), "localhost:4317"),
        (":4317", Endpoint("", 4317), ":4317"),
        ("0.0.0.0:0", Endpoint("0.0.0.0", 0), "0.0.0.0:0"),
        ("[::1]:4317", Endpoint("::1", 4317), "[::1]:4317"),
        ("[::]:1", Endpoint("::", 1), "[::]:1"),
        ("unix:///run/a.sock", Endpoint(path="/run/a.sock"), "unix:///run/a.sock"),
        ("unix:/run/a.sock", Endpoint(path="/run/a.sock"), "unix:///run/a.sock"),
        ("unix:a.sock", Endpoint(path="a.sock"), "unix://a.sock"),
    ],
)
def test_endpoint_forms(text, endpoint, written):
    """Go's and gRPC's forms of endpoints are understood."""
    assert Endpoint.parse(text) == endpoint
    assert str(endpoint) == written


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "4317",
        "a:b",
        "a:-1",
        "a:65536",
        "::1:80",
        "[::1]",
        "http://a:1",
        "a b:1",
        "a/b:1",
        "unix:",
        "unix:///" + "x" * 200,
        "a:٣",
    ],
)
def test_invalid_endpoints_say_what_is_expected(text):
    """The message shows the value."""
    with pytest.raises(ValueError, match=r"is not a valid|is a URL"):
        Endpoint.parse(text)


@settings(deadline=None)
@given(st.text(max_size=50))
def test_any_text_parses_or_is_refused(text):
    """Parsing never raises any exception but ValueError."""
    try:
        endpoint = Endpoint.parse(text)
    except ValueError:
        return
    assert Endpoint.parse(str(endpoint)) == endpoint


def test_localhost_listens_on_ipv4_first():
    """As in Go: one address, not one per family with different ports."""
    with Endpoint.parse("localhost:0").listen() as sock:
        assert sock.getsockname()[0] == "127.0.0.1"


def test_second_listener_on_a_port_is_refused():
    """Listening sockets do not set SO_REUSEPORT."""
    with Endpoint.parse("127.0.0.1:0").listen() as sock, pytest.raises(OSError) as failure:
        Endpoint("127.0.0.1", sock.getsockname()[1]).listen()
    assert failure.value.errno == errno.EADDRINUSE


def test_stale_unix_socket_is_replaced_a_live_one_is_not():
    """And a file that is not a socket is left alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.sock")
        endpoint = Endpoint(path=str(path))
        endpoint.listen().close()
        assert path.is_socket()
        with endpoint.listen(), pytest.raises(OSError) as failure:
            endpoint.listen()
        assert failure.value.errno == errno.EADDRINUSE
        path.unlink()
        path.write_text("precious")
        with pytest.raises(OSError) as failure:
            endpoint.listen()
        assert failure.value.errno == errno.EEXIST
        assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.5", True),
        ("::ffff:10.0.0.5", True),
        ("fe80::1%eth0", True),
        ("10.0.0.6", False),
        ("::ffff:10.0.0.6", False),
        ("2001:db8::1", False),
        ("nonsense", None),
        ("", None),
    ],
)
def test_local_addresses(address, local):
    """Loopback, an address of this machine, and IPv4 as dual-stack sockets report it."""
    assert LocalAddresses(lambda: frozenset({"10.0.0.5", "fe80::1"})).is_local(address) is local


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("ipv4:127.0.0.1:5555", True),
        ("ipv6:%5B::1%5D:5555", True),
        ("ipv6:[::1]:5555", True),
        ("ipv6:%5B::ffff:10.0.0.5%5D:1", True),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", True),
        ("ipv4:10.0.0.6:5555", False),
        ("unix:", True),
        ("unix:/run/a.sock", True),
        ("vsock:1:2", None),
    ],
)
def test_grpc_peers(peer, local):
    """Peers are recognised in the form in which gRPC names them."""
    assert LocalAddresses(lambda: frozenset({"10.0.0.5", "fe80::1"})).is_local_grpc(peer) is local


def test_new_addresses_are_seen_after_a_while_and_read_rarely():
    """Reading the interfaces costs system calls: at most once in 30 s."""
    own, reads, now = {"10.0.0.5"}, [], [0.0]

    def read():
        reads.append(now[0])
        return frozenset(own)

    addresses = LocalAddresses(read, lambda: now[0])
    assert addresses.is_local("10.0.0.7") is False
    own.add("10.0.0.7")
    now[0] = 29.9
    assert addresses.is_local("10.0.0.7") is False
    now[0] = 30.0
    assert addresses.is_local("10.0.0.7") is True
    assert reads == [0.0, 30.0]


def test_real_interfaces():
    """The machine has at least a loopback interface."""
    assert {"127.0.0.1", "::1"} & interface_addresses()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        assert LocalAddresses().is_local(sock.getsockname()[0])
