"""TLS settings of clients and servers. Source: open-telemetry/opentelemetry-collector config/configtls."""

from collections.abc import Mapping
from typing import ClassVar, Final, Literal, TypeAlias

from config.blocks.base import ComponentConfig, OutdatedKey
from config.blocks.values import Duration, Secret

__all__ = ["OUTDATED_CLIENT_KEYS", "OUTDATED_SERVER_KEYS", "TLSClientConfig", "TLSServerConfig"]

_Version: TypeAlias = Literal["", "1.0", "1.1", "1.2", "1.3"]


class TLSClientConfig(ComponentConfig):
    """TLS settings of a client."""

    null_means_default: ClassVar[bool] = False
    replaces_default: ClassVar[bool] = True  # a user's certificate must not inherit ``insecure: true``

    insecure: bool = False
    """Do not use TLS, unless a ca_file is given. Has no effect over HTTP, where the scheme of the URL decides."""
    insecure_skip_verify: bool = False
    """Use TLS without verifying the server's certificate."""
    server_name_override: str = ""
    """Host name that the server's certificate must be valid for. Empty: the host name of the endpoint."""
    ca_file: str = ""
    """PEM file with the certificate authorities that may have signed the server's certificate. Empty: the system's."""
    ca_pem: Secret = Secret("")
    """The content of ca_file, inline."""
    cert_file: str = ""
    """PEM file with the client's own certificate, for servers that ask for one (mTLS)."""
    cert_pem: Secret = Secret("")
    """The content of cert_file, inline."""
    key_file: str = ""
    """PEM file with the unencrypted private key of the client's certificate."""
    key_pem: Secret = Secret("")
    """The content of key_file, inline."""
    include_system_ca_certs_pool: bool = False
    """Trust the system's certificate authorities in addition to those in ca_file."""
    min_version: _Version = "1.2"
    """Lowest TLS version to accept."""
    max_version: _Version = ""
    """Highest TLS version to accept. Empty: the highest that is supported."""
    cipher_suites: tuple[str, ...] = ()
    """Cipher suites of TLS 1.2 to offer, by their IANA names. Empty: the TLS library's defaults."""
    curve_preferences: tuple[str, ...] = ()
    """Elliptic curve of the key exchange: one of X25519, P256, P384, P521. Empty: the TLS library's defaults."""
    reload_interval: Duration = 0.0
    """How often to check the certificate files for changes. 0: never."""


class TLSServerConfig(ComponentConfig):
    """TLS settings of a server."""

    null_means_default: ClassVar[bool] = False

    cert_file: str = ""
    """PEM file with the server's certificate."""
    cert_pem: Secret = Secret("")
    """The content of cert_file, inline."""
    key_file: str = ""
    """PEM file with the unencrypted private key of the server's certificate."""
    key_pem: Secret = Secret("")
    """The content of key_file, inline."""
    ca_file: str = ""
    """Must be valid, as in the Collector, but does not verify clients: set client_ca_file for that."""
    client_ca_file: str = ""
    """PEM file with certificate authorities. If set, clients must have a certificate signed by one of them (mTLS)."""
    client_ca_file_reload: bool = False
    """Check the certificate files for changes every second if reload_interval is 0."""
    min_version: _Version = "1.2"
    """Lowest TLS version to accept."""
    max_version: _Version = ""
    """Highest TLS version to accept. Empty: the highest that is supported."""
    cipher_suites: tuple[str, ...] = ()
    """Cipher suites of TLS 1.2 to accept, by their IANA names. Empty: the TLS library's defaults."""
    curve_preferences: tuple[str, ...] = ()
    """Elliptic curve of the key exchange: one of X25519, P256, P384, P521. Empty: the TLS library's defaults."""
    reload_interval: Duration = 0.0
    """How often to check the certificate files for changes. 0: never."""


# Until version 0.32 of the Collector, the keys of a client's TLS settings were written beside its endpoint; those of a
# server were in the block ``tls_settings``, which was also the name of the client's block for a while.
OUTDATED_SERVER_KEYS: Final[Mapping[str, OutdatedKey]] = {"tls_settings": OutdatedKey("tls")}
"""For blocks that have ``tls``, a ``TLSServerConfig``."""
OUTDATED_CLIENT_KEYS: Final[Mapping[str, OutdatedKey]] = {
    **OUTDATED_SERVER_KEYS,
    **{
        key: OutdatedKey(f"tls::{key}")
        for key in ("insecure", "insecure_skip_verify", "ca_file", "cert_file", "key_file", "server_name_override")
    },
}
"""For blocks that have ``tls``, a ``TLSClientConfig``."""
