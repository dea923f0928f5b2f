"""TLS contexts: files and inline PEM, mTLS, versions, and certificates that change under a running server."""

import asyncio
import ssl
from pathlib import Path

import grpc
import pytest
import trustme
from structlog.testing import capture_logs

from collector.transport.tls import (
    FileWatch,
    ReloadingClientContext,
    client_context,
    grpc_channel_credentials,
    grpc_server_credentials,
    server_context,
)
from config.blocks import TLSClientConfig, TLSServerConfig


class Pki:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(folder / "ca.pem")
        self.issue()

    @property
    def ca(self) -> str:
        return str(self.folder / "ca.pem")

    def issue(self, authority: trustme.CA | None = None) -> None:
        leaf = (authority or self.authority).issue_cert("localhost", "127.0.0.1")
        leaf.cert_chain_pems[0].write_to_path(self.folder / "cert.pem")
        leaf.private_key_pem.write_to_path(self.folder / "key.pem")

    def server(self, **more) -> TLSServerConfig:
        return TLSServerConfig(cert_file=str(self.folder / "cert.pem"), key_file=str(self.folder / "key.pem"), **more)

    def client(self, **more) -> TLSClientConfig:
        return TLSClientConfig(ca_file=self.ca, **more)


@pytest.fixture(scope="module")
def module_pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def pki(tmp_path):
    return Pki(tmp_path)


async def greet(server: ssl.SSLContext, client: ssl.SSLContext, name: str = "localhost") -> dict:
    """Shake hands over loopback; return the server's certificate as the client saw it."""

    async def serve(reader, writer):
        try:
            writer.write(await reader.readexactly(2))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=name)
        try:
            writer.write(b"hi")
            assert await reader.readexactly(2) == b"hi"
            return {
                "cert": writer.get_extra_info("ssl_object").getpeercert(binary_form=True),
                "version": writer.get_extra_info("ssl_object").version(),
            }
        finally:
            writer.close()


async def test_files_serve_and_verify(module_pki):
    seen = await greet(server_context(module_pki.server()), client_context(module_pki.client()))
    assert seen["version"] == "TLSv1.3"


async def test_inline_pem_works_as_files_do(module_pki):
    cert, key, ca = (Path(module_pki.folder / name).read_text() for name in ("cert.pem", "key.pem", "ca.pem"))
    await greet(server_context(TLSServerConfig(cert_pem=cert, key_pem=key)), client_context(TLSClientConfig(ca_pem=ca)))


async def test_an_unknown_authority_is_refused_unless_verification_is_skipped(module_pki):
    server = server_context(module_pki.server())
    with pytest.raises(ssl.SSLCertVerificationError):
        await greet(server, client_context(TLSClientConfig()))
    await greet(server, client_context(TLSClientConfig(insecure_skip_verify=True)))


async def test_mtls_wants_a_client_certificate(module_pki):
    server = server_context(module_pki.server(client_ca_file=module_pki.ca))
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await greet(server, client_context(module_pki.client()))
    own = {"cert_file": str(module_pki.folder / "cert.pem"), "key_file": str(module_pki.folder / "key.pem")}
    await greet(server, client_context(module_pki.client(**own)))


async def test_the_ca_file_of_a_server_must_be_valid_but_does_not_verify_clients(module_pki, tmp_path):
    """As in the Collector; the log says which key verifies them."""
    for serve in (server_context, grpc_server_credentials):
        with capture_logs() as events:
            serve(module_pki.server(ca_file=module_pki.ca))
        assert [event["event"] for event in events] == [
            "tls::ca_file does not make the server verify its clients; set client_ca_file for that"
        ]
        with capture_logs() as events:
            serve(module_pki.server(ca_file=module_pki.ca, client_ca_file=module_pki.ca))
        assert events == []
        (tmp_path / "no.pem").write_text("no certificate")
        for path in (tmp_path / "no.pem", tmp_path / "missing.pem"):
            with pytest.raises(ValueError, match=f"tls::ca_file: {path}"):
                serve(module_pki.server(ca_file=str(path)))
    await greet(server_context(module_pki.server(ca_file=module_pki.ca)), client_context(module_pki.client()))


async def test_versions_are_bounded(module_pki):
    server = server_context(module_pki.server(max_version="1.2"))
    assert (await greet(server, client_context(module_pki.client())))["version"] == "TLSv1.2"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await greet(server, client_context(module_pki.client(min_version="1.3")))


async def test_a_cipher_suite_by_its_go_name_is_used(module_pki):
    suites = ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384")
    await greet(
        server_context(module_pki.server(cipher_suites=suites, max_version="1.2", curve_preferences=("P256",))),
        client_context(module_pki.client()),
    )


async def test_a_running_server_takes_up_a_renewed_certificate(pki):
    now = [0.0]
    server = server_context(pki.server(reload_interval="10s"), lambda: now[0])
    client = client_context(pki.client())
    first = (await greet(server, client))["cert"]
    pki.issue()
    assert (await greet(server, client))["cert"] == first, "not before the interval is over"
    now[0] = 11
    second = (await greet(server, client))["cert"]
    assert second != first
    Path(pki.folder / "key.pem").write_text("half writ")
    now[0] = 22
    assert (await greet(server, client))["cert"] == second, "a broken file leaves the old one in use"
    pki.issue()
    now[0] = 33
    assert (await greet(server, client))["cert"] not in (first, second)


async def test_a_renewed_client_ca_is_taken_up(pki):
    now = [0.0]
    server = server_context(pki.server(client_ca_file=pki.ca, client_ca_file_reload=True), lambda: now[0])
    other = trustme.CA()
    leaf = other.issue_cert("client")
    client = client_context(pki.client())
    leaf.configure_cert(client)
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await greet(server, client)
    other.cert_pem.write_to_path(pki.ca)
    now[0] = 2
    await greet(server, client)


def test_a_client_takes_up_renewed_authorities(pki):
    now = [0.0]
    holder = ReloadingClientContext(pki.client(reload_interval="10s"), lambda: now[0])
    first = holder.get()
    trustme.CA().cert_pem.write_to_path(pki.ca)
    assert holder.get() is first
    now[0] = 11
    second = holder.get()
    assert second is not first
    Path(pki.ca).write_text("not PEM")
    now[0] = 22
    assert holder.get() is second


def test_a_watch_without_interval_never_fires(tmp_path):
    path = tmp_path / "x"
    watch = FileWatch((str(path),), 0, lambda: 99.0)
    path.write_text("x")
    assert not watch.changed()


async def _echo_over_grpc(server_tls, client_tls, options=()):
    server = grpc.aio.server()

    async def echo(request, _context):
        return request

    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("t.Echo", {"Echo": grpc.unary_unary_rpc_method_handler(echo)}),)
    )
    port = server.add_secure_port("localhost:0", server_tls)
    await server.start()
    try:
        async with grpc.aio.secure_channel(f"localhost:{port}", client_tls, options=options) as channel:
            return await channel.unary_unary("/t.Echo/Echo")(b"hi", timeout=10)
    finally:
        await server.stop(None)


async def test_grpc_credentials_shake_hands(module_pki):
    assert (
        await _echo_over_grpc(
            grpc_server_credentials(module_pki.server()), grpc_channel_credentials(module_pki.client())
        )
        == b"hi"
    )


async def test_grpc_mtls(module_pki):
    own = {"cert_file": str(module_pki.folder / "cert.pem"), "key_file": str(module_pki.folder / "key.pem")}
    server = module_pki.server(client_ca_file=module_pki.ca)
    assert (
        await _echo_over_grpc(grpc_server_credentials(server), grpc_channel_credentials(module_pki.client(**own)))
        == b"hi"
    )
    with pytest.raises(grpc.aio.AioRpcError):
        await _echo_over_grpc(grpc_server_credentials(server), grpc_channel_credentials(module_pki.client()))


async def test_grpc_server_takes_up_a_renewed_certificate(pki):
    now = [0.0]
    credentials = grpc_server_credentials(pki.server(reload_interval="10s"), lambda: now[0])
    client = grpc_channel_credentials(pki.client())
    assert await _echo_over_grpc(credentials, client) == b"hi"
    other = trustme.CA()
    pki.issue(other)
    now[0] = 11
    other.cert_pem.write_to_path(pki.ca)
    assert await _echo_over_grpc(credentials, grpc_channel_credentials(pki.client())) == b"hi"


def test_insecure_means_no_credentials():
    assert grpc_channel_credentials(TLSClientConfig(insecure=True)) is None


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"min_version": "1.3"}, "min_version"),
        ({"max_version": "1.2"}, "max_version"),
        ({"cipher_suites": ("TLS_RSA_WITH_AES_128_CBC_SHA",)}, "cipher_suites"),
        ({"curve_preferences": ("P256",)}, "curve_preferences"),
        ({"insecure_skip_verify": True}, "insecure_skip_verify"),
    ],
)
def test_what_grpc_cannot_do_is_refused_by_name(more, named):
    with pytest.raises(ValueError, match=f"tls::{named}"):
        grpc_channel_credentials(TLSClientConfig(**more))


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"ca_file": "/nowhere/ca.pem"}, "tls::ca_file"),
        ({"ca_pem": "no pem"}, "tls::ca_file"),
        ({"cert_file": "/nowhere/c.pem", "key_file": "/nowhere/k.pem"}, "tls::cert_file"),
        ({"cert_pem": "x"}, r"cert_file \(or cert_pem\) requires key_file"),
        ({"key_pem": "SECRET"}, r"key_pem\) requires cert_file"),
        ({"cert_pem": "x", "key_pem": "SECRET"}, "not a PEM certificate"),
        ({"min_version": "1.3", "max_version": "1.2"}, "above max_version"),
        ({"cipher_suites": ("RC4",)}, "unknown names RC4"),
        ({"curve_preferences": ("P256", "P384")}, "curve_preferences"),
    ],
)
def test_errors_name_the_key_and_show_no_secret(more, named):
    with pytest.raises(ValueError, match=named) as caught:
        client_context(TLSClientConfig(**more))
    assert "SECRET" not in str(caught.value)


def test_a_server_without_certificate_is_refused():
    with pytest.raises(ValueError, match="a server requires cert_file"):
        server_context(TLSServerConfig())
