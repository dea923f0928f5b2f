"""Configuration of ``redaction``. Source: opentelemetry-collector-contrib processor/redactionprocessor (v0.160)."""

from collections.abc import Iterable
from typing import Final, Literal, Self

from pydantic import field_validator, model_validator

from collector.text.patterns import compile_pattern
from config.blocks import ComponentConfig, Secret

__all__ = ["DatabaseConfig", "DatabasesConfig", "RedactionConfig", "UrlConfig"]

_HMAC_KEY_MIN_BYTES: Final = {"hmac-sha256": 32, "hmac-sha512": 64}


class UrlConfig(ComponentConfig):
    """Replaces the variable parts of URLs by ``*``."""

    enabled: bool = False
    """Whether URLs are sanitized: in ``attributes``, in log bodies, and in span names."""
    attributes: tuple[str, ...] = ()
    """Keys of the attributes that hold URLs."""
    sanitize_span_name: bool | None = None
    """Whether the names of client and server spans are sanitized. Absent: yes."""


class DatabaseConfig(ComponentConfig):
    """Removes the values from the statements of one kind of database."""

    enabled: bool = False
    """Whether statements are sanitized: in ``attributes``, in log bodies, and in span names."""
    attributes: tuple[str, ...] = ()
    """Keys of the attributes that hold statements."""


class DatabasesConfig(ComponentConfig):
    """Removes the values from database statements."""

    sql: DatabaseConfig = DatabaseConfig()
    """SQL: MySQL, MariaDB, PostgreSQL, SQLite and ``other_sql``."""
    redis: DatabaseConfig = DatabaseConfig()
    """Commands of Redis."""
    valkey: DatabaseConfig = DatabaseConfig()
    """Commands of Valkey."""
    memcached: DatabaseConfig = DatabaseConfig()
    """Commands of Memcached."""
    mongo: DatabaseConfig = DatabaseConfig()
    """Queries of MongoDB, as JSON."""
    opensearch: DatabaseConfig = DatabaseConfig()
    """Queries of OpenSearch, as JSON."""
    es: DatabaseConfig = DatabaseConfig()
    """Queries of Elasticsearch, as JSON."""
    sanitize_span_name: bool | None = None
    """Whether the names of client, server and internal spans with a ``db.system.name`` or ``db.system`` are sanitized.
    Absent: yes.
    """


class RedactionConfig(ComponentConfig):
    """Configuration of ``redaction``: deletes attributes that are not allowed and masks values that are blocked."""

    allow_all_keys: bool = False
    """Whether attributes may have any key, not only one of ``allowed_keys``."""
    allowed_keys: tuple[str, ...] = ()
    """Keys of the attributes that stay; all others are deleted. Empty: all attributes are deleted."""
    ignored_keys: tuple[str, ...] = ()
    """Keys of attributes that stay as they are, whatever their value is."""
    ignored_key_patterns: tuple[str, ...] = ()
    """Regular expressions for keys of attributes that stay as they are."""
    blocked_key_patterns: tuple[str, ...] = ()
    """Regular expressions for keys of attributes whose whole value is masked."""
    blocked_values: tuple[str, ...] = ()
    """Regular expressions, applied in this order; what they match in a value is masked."""
    allowed_values: tuple[str, ...] = ()
    """Regular expressions for values that are not masked, even if ``blocked_values`` match."""
    redact_all_types: bool = False
    """Whether values that are not text are checked as well, as text. A value that is masked becomes text."""
    hash_function: Literal["", "md5", "sha1", "sha3", "hmac-sha256", "hmac-sha512"] = ""
    """How masked values are replaced: by this hash in hexadecimal (``sha3`` is SHA3-256), or empty: by ``****``."""
    hmac_key: Secret = Secret("")
    """The key for ``hmac-sha256`` (at least 32 bytes) and ``hmac-sha512`` (at least 64 bytes)."""
    summary: str = ""
    """What the attributes ``redaction.…`` of each row say of the changes: ``debug``: the keys and how many they are,
    ``info``: how many, anything else, such as ``silent``: nothing.
    """
    url_sanitizer: UrlConfig = UrlConfig()
    """Replaces the variable parts of URLs by ``*``."""
    db_sanitizer: DatabasesConfig = DatabasesConfig()
    """Removes the values from database statements."""
    drop_unknown_fields: bool = True
    """Whether fields that this version of OTLP does not define are removed, because nothing can check them."""

    @field_validator("hash_function", mode="before")
    @classmethod
    def _any_case(cls, name: object) -> object:
        return name.lower() if isinstance(name, str) else name

    @field_validator("ignored_key_patterns", "blocked_key_patterns", "blocked_values", "allowed_values")
    @classmethod
    def _compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            compile_pattern(pattern)
        return patterns

    @model_validator(mode="after")
    def _has_key(self) -> Self:
        least = _HMAC_KEY_MIN_BYTES.get(self.hash_function, 0)
        size = len(self.hmac_key.get_secret_value().encode())
        if size < least:
            raise ValueError(
                f"hmac_key: hash_function {self.hash_function!r} needs a key of at least {least} bytes, got {size}; "
                "for example ${env:REDACTION_KEY}"
            )
        return self

    def warnings(self) -> Iterable[tuple[str, str]]:
        """Settings that probably do not do what is meant."""
        if not self.allow_all_keys and not self.allowed_keys:
            yield "allowed_keys", "is empty, so all attributes are deleted; allow_all_keys: true keeps them"
        if self.summary not in {"", "silent", "info", "debug"}:
            yield "summary", f"{self.summary!r} means silent, as in the Collector; expected debug, info or silent"
        if self.hmac_key.get_secret_value() and not self.hash_function.startswith("hmac"):
            yield "hmac_key", "has no effect without hash_function: hmac-sha256 or hmac-sha512"
