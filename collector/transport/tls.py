"""TLS contexts and gRPC credentials from configtls blocks, with certificates that are reloaded when their files change.

``reload_interval`` works without timers: a server checks its files when a client connects, a client when it sends, at
most once per interval. If the new files cannot be read or do not belong together, the old certificates stay in use.

HTTP uses Python's ``ssl``. grpcio brings its own BoringSSL, which can only be given certificates: the settings it does
not support (``min_version: "1.3"``, ``max_version``, ``cipher_suites``, ``curve_preferences``,
``insecure_skip_verify``) are refused by name, never silently ignored.

Source: open-telemetry/opentelemetry-collector config/configtls; names of cipher suites: Go crypto/tls and RFC 8446.
"""

import os
import ssl
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

import grpc
import structlog

from config.blocks import Secret, TLSClientConfig, TLSServerConfig
from config.blocks.tls import CIPHER_SUITES, CURVES

__all__ = [
    "FileWatch",
    "ReloadingClientContext",
    "client_context",
    "grpc_channel_credentials",
    "grpc_server_credentials",
    "server_context",
]

_VERSIONS: Final = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}

_log = structlog.get_logger(__name__)


class FileWatch:
    """Detects changes of files, checking at most once per ``interval_s``; never, if that is 0."""

    def __init__(
        self, paths: tuple[str, ...], interval_s: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._paths = tuple(filter(None, paths))
        self._interval_s = interval_s
        self._monotonic = monotonic
        self._next_check_s = monotonic() + interval_s
        self._seen = self._state()

    def changed(self) -> bool:
        """Whether a file has changed since the last time this returned True."""
        if not self._interval_s or not self._paths:
            return False
        now = self._monotonic()
        if now < self._next_check_s:
            return False
        self._next_check_s = now + self._interval_s
        state = self._state()
        if state == self._seen:
            return False
        self._seen = state
        return True

    def forget(self) -> None:
        """Report the change again at the next check: the files were not usable yet (half-written)."""
        self._seen = ()

    def _state(self) -> tuple[tuple[int, int, int], ...]:
        def file_state(path: str) -> tuple[int, int, int]:
            try:
                stat = os.stat(path)  # noqa: PTH116 - one call per file, on the connection path
            except OSError:
                return (0, 0, 0)
            return (stat.st_ino, stat.st_mtime_ns, stat.st_size)

        return tuple(file_state(path) for path in self._paths)


def server_context(
    config: TLSServerConfig,
    monotonic: Callable[[], float] = time.monotonic,
    *,
    protocols: tuple[str, ...] = ("http/1.1",),
) -> ssl.SSLContext:
    """Return the context to listen with, which reloads its certificates. ``protocols``: for ALPN, preferred first.

    Raises:
        ValueError: a key is missing, unreadable or unusable; the message names it.
    """
    context = _server_context_once(config, protocols)
    _warn_of_ca_file(config)
    paths = (config.cert_file, config.key_file, config.client_ca_file)
    # client_ca_file_reload has no interval of its own: the Collector watches the file, we check every second.
    interval_s = config.reload_interval or (1.0 if config.client_ca_file_reload else 0.0)
    if not interval_s:
        return context
    watch = FileWatch(paths, interval_s, monotonic)
    current = context

    def on_hello(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        nonlocal current
        if watch.changed():
            try:
                current = _server_context_once(config, protocols)
            except ValueError as exc:
                watch.forget()
                _log.warning(
                    "the certificate files changed but cannot be used; the old certificates stay in use", error=str(exc)
                )
        if current is not context:
            connection.context = current

    context.sni_callback = on_hello
    return context


def _server_context_once(config: TLSServerConfig, protocols: tuple[str, ...] = ()) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _bound_versions(context, config.min_version, config.max_version)
    _restrict(context, config.cipher_suites, config.curve_preferences)
    _load_own_certificate(context, config)
    if config.ca_file:  # as in the Collector, it must be valid, but servers verify clients by client_ca_file alone
        _load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), config.ca_file, "", "ca_file")
    if config.client_ca_file:
        _load_authorities(context, config.client_ca_file, "", "client_ca_file")
        context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(protocols)
    return context


def _warn_of_ca_file(config: TLSServerConfig) -> None:
    if config.ca_file and not config.client_ca_file:
        _log.warning(
            "tls::ca_file does not make the server verify its clients; set client_ca_file for that",
            ca_file=config.ca_file,
        )


def client_context(config: TLSClientConfig) -> ssl.SSLContext:
    """Return the context to connect with. It ignores ``server_name_override``: pass that as the server's host name.

    Raises:
        ValueError: a key is unreadable or unusable; the message names it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _bound_versions(context, config.min_version, config.max_version)
    _restrict(context, config.cipher_suites, config.curve_preferences)
    own_authorities = bool(config.ca_file or _value(config.ca_pem))
    if not own_authorities or config.include_system_ca_certs_pool:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if own_authorities:
        _load_authorities(context, config.ca_file, _value(config.ca_pem), "ca_file")
    if config.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if config.cert_file or _value(config.cert_pem):
        _load_own_certificate(context, config)
    return context


class ReloadingClientContext:
    """A :func:`client_context` that is replaced when its files change. Call :meth:`get` before every request."""

    def __init__(self, config: TLSClientConfig, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._watch = FileWatch((config.ca_file, config.cert_file, config.key_file), config.reload_interval, monotonic)
        self._context = client_context(config)

    def get(self) -> ssl.SSLContext:
        """Return the context to use now."""
        if self._watch.changed():
            try:
                self._context = client_context(self._config)
            except ValueError as exc:
                self._watch.forget()
                _log.warning(
                    "the certificate files changed but cannot be used; the old certificates stay in use", error=str(exc)
                )
        return self._context


def grpc_channel_credentials(config: TLSClientConfig) -> grpc.ChannelCredentials | None:
    """Return credentials for ``grpc.aio.secure_channel``; None: use an insecure channel (``insecure: true``).

    Pass ``server_name_override`` as the channel option ``grpc.ssl_target_name_override``.

    Raises:
        ValueError: a file is unreadable, or grpcio does not support a setting; the message names the key.
    """
    # with a CA it is TLS, as in the Collector
    if config.insecure and not (config.ca_file or _value(config.ca_pem)):
        return None
    if config.insecure_skip_verify:
        raise ValueError(
            "tls::insecure_skip_verify: transport grpcio always verifies; set ca_file to the server's certificate "
            "(and server_name_override to its name), or insecure: true for a server without TLS"
        )
    _refuse_unsupported_by_grpcio(config)
    client_context(config)  # the same checks and messages as for HTTP
    roots = _pem(config.ca_file, config.ca_pem, "ca_file")
    if roots is None or config.include_system_ca_certs_pool:
        roots = b"\n".join(filter(None, (roots, _system_roots()))) or None
    return grpc.ssl_channel_credentials(
        root_certificates=roots,
        private_key=_pem(config.key_file, config.key_pem, "key_file"),
        certificate_chain=_pem(config.cert_file, config.cert_pem, "cert_file"),
    )


def grpc_server_credentials(
    config: TLSServerConfig, monotonic: Callable[[], float] = time.monotonic
) -> grpc.ServerCredentials:
    """Return credentials for ``add_secure_port``, which reload their certificates.

    Raises:
        ValueError: a file is missing or unreadable, or grpcio does not support a setting; the message names the key.
    """
    _refuse_unsupported_by_grpcio(config)
    first = _grpc_server_certificates(config)
    _warn_of_ca_file(config)
    mutual = bool(config.client_ca_file)
    interval_s = config.reload_interval or (1.0 if config.client_ca_file_reload else 0.0)
    watch = FileWatch((config.cert_file, config.key_file, config.client_ca_file), interval_s, monotonic)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        if not watch.changed():
            return None
        try:
            return _grpc_server_certificates(config)
        except ValueError as exc:
            watch.forget()
            _log.warning(
                "the certificate files changed but cannot be used; the old certificates stay in use", error=str(exc)
            )
            return None

    return grpc.dynamic_ssl_server_credentials(first, fetch, require_client_authentication=mutual)


def _grpc_server_certificates(config: TLSServerConfig) -> grpc.ServerCertificateConfiguration:
    _server_context_once(config)  # the same checks and messages as for HTTP
    return grpc.ssl_server_certificate_configuration(
        [(_pem(config.key_file, config.key_pem, "key_file"), _pem(config.cert_file, config.cert_pem, "cert_file"))],
        root_certificates=_pem(config.client_ca_file, Secret(""), "client_ca_file"),
    )


def _refuse_unsupported_by_grpcio(config: TLSClientConfig | TLSServerConfig) -> None:
    if config.min_version == "1.3":
        raise ValueError("tls::min_version: transport grpcio always offers 1.2 and 1.3; set it to 1.2 or omit it")
    if config.max_version not in {"", "1.3"}:
        raise ValueError("tls::max_version: transport grpcio always offers 1.2 and 1.3; omit it")
    if config.cipher_suites:
        raise ValueError(
            "tls::cipher_suites: transport grpcio reads them only from GRPC_SSL_CIPHER_SUITES in the environment; "
            "omit it"
        )
    if config.curve_preferences:
        raise ValueError("tls::curve_preferences: transport grpcio does not support this setting; omit it")


def _bound_versions(context: ssl.SSLContext, minimum: str, maximum: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 1.0 and 1.1 are used only if configured
        context.minimum_version = _VERSIONS[minimum or "1.2"]
        if maximum:
            context.maximum_version = _VERSIONS[maximum]


def _restrict(context: ssl.SSLContext, cipher_suites: tuple[str, ...], curves: tuple[str, ...]) -> None:
    if cipher_suites:
        try:
            context.set_ciphers(":".join(CIPHER_SUITES[name] for name in cipher_suites))
        except ssl.SSLError as exc:
            raise ValueError(
                f"tls::cipher_suites: this version of OpenSSL does not support any of {', '.join(cipher_suites)}"
            ) from exc
    if not curves:
        return
    try:
        context.set_ecdh_curve(CURVES[curves[0]])
    except (ssl.SSLError, ValueError) as exc:
        raise ValueError(f"tls::curve_preferences: this version of OpenSSL does not support {curves[0]}") from exc


def _load_own_certificate(context: ssl.SSLContext, config: TLSClientConfig | TLSServerConfig) -> None:
    with (
        _as_file(config.cert_file, config.cert_pem, "cert_file") as cert,
        _as_file(config.key_file, config.key_pem, "key_file") as key,
    ):
        try:
            context.load_cert_chain(cert, key, password="")
        except (ssl.SSLError, OSError, ValueError) as exc:
            files = f"{config.cert_file or 'cert_pem'} and {config.key_file or 'key_pem'}"
            raise ValueError(
                f"tls: {files} are not a PEM certificate and its unencrypted private key ({_brief(exc)})"
            ) from exc


def _load_authorities(context: ssl.SSLContext, path: str, pem: str, key: str) -> None:
    try:
        context.load_verify_locations(cafile=path or None, cadata=pem or None)
    except (ssl.SSLError, OSError) as exc:
        raise ValueError(f"tls::{key}: {path or 'ca_pem'} does not contain PEM certificates ({_brief(exc)})") from exc


def _brief(exc: Exception) -> str:
    return str(getattr(exc, "reason", None) or getattr(exc, "strerror", None) or type(exc).__name__)


def _value(secret: Secret) -> str:
    return secret.get_secret_value()


def _pem(path: str, pem: Secret, key: str) -> bytes | None:
    """Return the bytes of a file or of an inline value; None if neither is configured."""
    if path:
        try:
            return Path(path).read_bytes()
        except OSError as exc:
            raise ValueError(f"tls::{key}: cannot read {path} ({_brief(exc)})") from exc
    return _value(pem).encode() or None


@contextmanager
def _as_file(path: str, pem: Secret, key: str) -> Iterator[str]:
    """Provide a path that OpenSSL can read, for a file or an inline value."""
    if path:
        if not os.access(path, os.R_OK):
            raise ValueError(f"tls::{key}: cannot read {path}")
        yield path
        return
    with NamedTemporaryFile("w", suffix=".pem") as file:  # mode 0600; ssl loads certificate chains only from paths
        file.write(_value(pem))
        file.flush()
        yield file.name


def _system_roots() -> bytes | None:
    """Return the system's CA certificates; None: use grpcio's own bundle."""
    path = ssl.get_default_verify_paths().cafile
    return Path(path).read_bytes() if path else None
