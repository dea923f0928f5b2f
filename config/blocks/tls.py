"""TLS settings of clients and servers. Source: open-telemetry/opentelemetry-collector config/configtls."""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Final, Literal, Self, TypeAlias

from pydantic import model_validator

from config.blocks.base import ComponentConfig, InvalidSettings, OutdatedKey
from config.blocks.values import Duration, Secret

__all__ = [
    "CIPHER_SUITES",
    "CURVES",
    "OUTDATED_CLIENT_KEYS",
    "OUTDATED_SERVER_KEYS",
    "TLSClientConfig",
    "TLSServerConfig",
]

_Version: TypeAlias = Literal["", "1.0", "1.1", "1.2", "1.3"]
CURVES: Final = {"P256": "prime256v1", "P384": "secp384r1", "P521": "secp521r1", "X25519": "X25519"}
# Go's (IANA) names of the TLS 1.2 suites it offers → OpenSSL's. TLS 1.3 suites are not configurable, in Go either.
CIPHER_SUITES: Final = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
}


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

    @model_validator(mode="after")
    def _is_usable(self) -> Self:
        has_certificate, has_key = _has(self.cert_file, self.cert_pem), _has(self.key_file, self.key_pem)
        found: list[tuple[tuple[str, ...], str]] = []
        if has_certificate and not has_key:
            found.append(((), "cert_file (or cert_pem) requires key_file (or key_pem)"))
        if has_key and not has_certificate:
            found.append(((), "key_file (or key_pem) requires cert_file (or cert_pem)"))
        if found := [*found, *_problems(self)]:
            raise InvalidSettings(*found)
        return self


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

    @model_validator(mode="after")
    def _is_usable(self) -> Self:
        has_certificate, has_key = _has(self.cert_file, self.cert_pem), _has(self.key_file, self.key_pem)
        found: list[tuple[tuple[str, ...], str]] = []
        if not (has_certificate and has_key):
            found.append(((), "a server requires cert_file (or cert_pem) and key_file (or key_pem)"))
        if found := [*found, *_problems(self)]:
            raise InvalidSettings(*found)
        return self


def _has(path: str, pem: Secret) -> bool:
    return bool(path or pem.get_secret_value())


def _problems(config: TLSClientConfig | TLSServerConfig) -> Iterator[tuple[tuple[str, ...], str]]:
    if config.min_version and config.max_version and config.min_version > config.max_version:
        if "min_version" in config.model_fields_set:
            yield ("min_version",), f"{config.min_version} is above max_version {config.max_version}"
        else:
            yield (
                ("max_version",),
                f"{config.max_version} is below min_version, which is {config.min_version} by default",
            )
    if unknown := [name for name in config.cipher_suites if name not in CIPHER_SUITES]:
        expected = ", ".join(sorted(CIPHER_SUITES))
        yield ("cipher_suites",), f"unknown names {', '.join(unknown)}; expected names from {expected}"
    curves = config.curve_preferences
    if curves and (len(curves) > 1 or curves[0] not in CURVES):
        yield (
            ("curve_preferences",),
            f"expected one of {', '.join(CURVES)} (Python's ssl supports a single curve), got {', '.join(curves)}",
        )


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
