"""How the configuration translates to gRPC's options; the rest is tested through the receivers that use it."""

import pytest

from collector.transport.grpc.grpcio_server import server_options
from config.blocks import GRPCServerConfig


def options(**config):
    return dict(server_options(GRPCServerConfig.model_validate(config)))


def test_defaults():
    """64 MiB, no SO_REUSEPORT, keepalive as in the Collector."""
    assert options() == {
        "grpc.so_reuseport": 0,
        "grpc.per_message_decompression": 0,
        "grpc.compression_enabled_algorithms_bitset": 5,
        "grpc.max_receive_message_length": 64 * 1024 * 1024,
        "grpc.max_metadata_size": 65536,
        "grpc.absolute_max_metadata_size": 65536,
        "grpc.keepalive_time_ms": 7_200_000,
        "grpc.keepalive_timeout_ms": 20_000,
        "grpc.http2.min_ping_interval_without_data_ms": 300_000,
    }


@pytest.mark.parametrize(
    ("config", "name", "value"),
    [
        ({"max_recv_msg_size_mib": 16}, "grpc.max_receive_message_length", 16 * 1024 * 1024),
        ({"max_concurrent_streams": 7}, "grpc.max_concurrent_streams", 7),
        ({"write_buffer_size": 4096}, "grpc.http2.write_buffer_size", 4096),
        ({"keepalive": {"server_parameters": {"max_connection_idle": "1m"}}}, "grpc.max_connection_idle_ms", 60_000),
        ({"keepalive": {"server_parameters": {"max_connection_age": "10m"}}}, "grpc.max_connection_age_ms", 600_000),
        (
            {"keepalive": {"server_parameters": {"max_connection_age_grace": "5s"}}},
            "grpc.max_connection_age_grace_ms",
            5_000,
        ),
        ({"keepalive": {"server_parameters": {"time": "30s"}}}, "grpc.keepalive_time_ms", 30_000),
        ({"keepalive": {"server_parameters": {"timeout": "3s"}}}, "grpc.keepalive_timeout_ms", 3_000),
        (
            {"keepalive": {"enforcement_policy": {"min_time": "10s"}}},
            "grpc.http2.min_ping_interval_without_data_ms",
            10_000,
        ),
        (
            {"keepalive": {"enforcement_policy": {"permit_without_stream": True}}},
            "grpc.keepalive_permit_without_calls",
            1,
        ),
    ],
)
def test_each_key_has_its_argument(config, name, value):
    """Every setting is passed on to grpcio."""
    assert options(**config)[name] == value
