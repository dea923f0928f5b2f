"""Listening sockets over a reload: who gets whose, and what two owners that stay may not do."""

import errno
import socket
from dataclasses import dataclass

import pytest

from collector.service.sockets import ListeningSockets
from collector.testing import free_port
from collector.transport.endpoint import Endpoint


@dataclass
class Owner:
    is_leaving: bool = False


def listen(sockets, owner, address):
    return sockets.listen(owner, address, Endpoint.parse(address).listen)


def test_the_successor_of_a_leaving_owner_shares_its_socket():
    """A connection made before the old descriptor is closed is accepted from the new one."""
    sockets, old, new = ListeningSockets(), Owner(), Owner()
    address = f"127.0.0.1:{free_port()}"
    first = listen(sockets, old, address)
    assert not first.is_continued
    old.is_leaving = True
    second = listen(sockets, new, address)
    assert first.is_continued
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))):
        first.socket.close()
        assert not second.is_continued
        second.socket.accept()[0].close()
    second.socket.close()


def test_two_owners_that_stay_cannot_have_one_address():
    """It is a conflict, as between two processes."""
    sockets, address = ListeningSockets(), f"127.0.0.1:{free_port()}"
    with listen(sockets, Owner(), address).socket, pytest.raises(OSError) as failure:
        listen(sockets, Owner(), address)
    assert failure.value.errno == errno.EADDRINUSE


def test_another_address_of_the_port_can_be_taken_while_the_owner_leaves():
    """Afterwards nobody else can have it: a second process must fail."""
    sockets, old, port = ListeningSockets(), Owner(), free_port()
    first = listen(sockets, old, f"127.0.0.1:{port}")
    old.is_leaving = True
    second = listen(sockets, Owner(), f"0.0.0.0:{port}")
    assert first.is_continued
    first.socket.close()
    with pytest.raises(OSError):
        Endpoint("127.0.0.1", port).listen()
    second.socket.close()


def test_port_0_is_never_passed_on():
    """Whoever asks for any port does not mean that of somebody else."""
    sockets, old = ListeningSockets(), Owner()
    first = listen(sockets, old, "127.0.0.1:0")
    old.is_leaving = True
    second = listen(sockets, Owner(), "127.0.0.1:0")
    assert first.socket.getsockname() != second.socket.getsockname()
    first.socket.close()
    second.socket.close()


def test_a_unix_socket_is_passed_on(tmp_path):
    """The path stays."""
    sockets, old, address = ListeningSockets(), Owner(), f"unix://{tmp_path / 's'}"
    first = listen(sockets, old, address)
    old.is_leaving = True
    second = listen(sockets, Owner(), address)
    assert first.is_continued
    first.socket.close()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
        second.socket.accept()[0].close()
    second.socket.close()
    assert len(sockets._all) == 2
    listen(sockets, Owner(), "127.0.0.1:0").socket.close()
    assert len(sockets._all) == 1
