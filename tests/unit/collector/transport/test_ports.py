"""The error for a busy port names its owner and the key that configures another."""

import os
import socket

import pytest

from collector.transport.ports import describe_port_conflict, is_port_conflict


def test_names_the_process_and_the_key():
    """The message contains the address, our own pid and the key."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        message = describe_port_conflict("127.0.0.1", port, "receivers::otlp::protocols::grpc::endpoint")
        with socket.socket() as second, pytest.raises(OSError) as refusal:
            second.bind(("127.0.0.1", port))
        assert is_port_conflict(refusal.value)
    assert f"127.0.0.1:{port}" in message
    assert f"pid {os.getpid()}" in message
    assert message.startswith("receivers::otlp::protocols::grpc::endpoint: ")


def test_brackets_ipv6_and_survives_an_unknown_owner():
    """A port whose owner is unknown still gives a usable sentence."""
    message = describe_port_conflict("::1", 1, "service::telemetry::metrics::address")
    assert "[::1]:1 " in message
    assert "ss -ltnp" in message
