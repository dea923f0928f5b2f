"""Questions to Amazon EC2: the metadata service of an instance, and the EC2 API, which knows the tags of instances.

Source: AWS "Instance metadata and user data", "Signature Version 4 signing process", EC2 API DescribeTags, STS API
AssumeRoleWithWebIdentity; AWS SDKs and Tools Reference Guide (environment variables, retry behaviour).
"""

import asyncio
import hashlib
import hmac
import html
import os
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from processors.resource_detection.config import ResourceDetectionConfig
from processors.resource_detection.fetch import DetectionError, Fetch

__all__ = ["Credentials", "InstanceMetadata", "instance_tags", "signed_headers"]

_TAGS_MAX: Final = 128
_FORM: Final = "application/x-www-form-urlencoded"
# The leaves of the XML that AWS writes, which has neither attributes there nor comments.
_LEAF: Final = re.compile(r"<(\w+)>([^<]*)</\1>")


class _Retries:
    """Requests that are made again after a failure that may pass, with growing pauses, as by the AWS SDKs."""

    def __init__(self, config: ResourceDetectionConfig) -> None:
        self._max_attempts, self._max_backoff_s = config.ec2.max_attempts, config.ec2.max_backoff

    async def __call__(self, request: Callable[[], Awaitable[str]]) -> str:
        for attempt in range(self._max_attempts):
            try:
                return await request()
            except DetectionError as error:
                if not error.may_pass or attempt + 1 == self._max_attempts:
                    raise
            # The pause is random, so that a fleet that starts at once does not ask again at once.
            await asyncio.sleep(min(self._max_backoff_s, random.random() * 2**attempt))  # noqa: S311
        raise AssertionError("max_attempts is at least 1")


class InstanceMetadata:
    """The metadata service of EC2, version 2: a token first, then everything else with it."""

    def __init__(self, config: ResourceDetectionConfig) -> None:
        self._base = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254").rstrip("/")
        self._fetch, self._retries = Fetch(config.timeout), _Retries(config)
        self._headers: dict[str, str] = {}

    async def login(self) -> None:
        """Get a token; without one there is no metadata service here."""
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
        url = f"{self._base}/latest/api/token"
        token = await self._retries(lambda: self._fetch.text(url, method="PUT", headers=headers))
        self._headers = {"X-aws-ec2-metadata-token": token}

    async def text(self, path: str) -> str:
        """One value."""
        return await self._retries(lambda: self._fetch.text(self._base + path, headers=self._headers))

    async def json(self, path: str) -> dict[str, Any]:
        """One document."""
        return self._fetch.parsed(self._base + path, await self.text(path))

    async def instance(self) -> dict[str, Any]:
        """The attributes of the instance."""
        document = await self.json("/latest/dynamic/instance-identity/document")
        return {
            "cloud.region": document.get("region"),
            "cloud.account.id": document.get("accountId"),
            "cloud.availability_zone": document.get("availabilityZone"),
            "host.id": document.get("instanceId"),
            "host.image.id": document.get("imageId"),
            "host.type": document.get("instanceType"),
            "host.name": await self.text("/latest/meta-data/hostname"),
        }


@dataclass(frozen=True, slots=True)
class Credentials:
    """What requests to AWS are signed with."""

    access_key_id: str
    secret_access_key: str
    session_token: str = ""


async def instance_tags(
    config: ResourceDetectionConfig, imds: InstanceMetadata, region: str, instance_id: str
) -> dict[str, str]:
    """The tags of an instance, from the EC2 API; needs the permission ``ec2:DescribeTags``.

    Raises:
        DetectionError: There are no credentials, or the API does not answer.
    """
    fetch = Fetch(config.timeout)
    credentials = await _credentials(fetch, imds, region)
    url = os.environ.get("AWS_ENDPOINT_URL_EC2") or f"https://ec2.{region}.{_domain(region)}"
    form = {
        "Action": "DescribeTags",
        "Version": "2016-11-15",
        "Filter.1.Name": "resource-id",
        "Filter.1.Value.1": instance_id,
    }
    body = urlencode(form).encode()

    async def request() -> str:
        headers = signed_headers(credentials, region, "ec2", url, body, datetime.now(UTC))
        return await fetch.text(url, method="POST", headers=headers, body=body)

    tags: dict[str, str] = {}
    key = ""
    for name, value in _leaves(await _Retries(config)(request)):
        if name == "key" and len(tags) < _TAGS_MAX:
            key = value
            tags[key] = ""
        elif name == "value" and key in tags:
            tags[key] = value
    return tags


def signed_headers(
    credentials: Credentials, region: str, service: str, url: str, body: bytes, now: datetime
) -> dict[str, str]:
    """The headers of a signed POST of a form to the root of ``url``."""
    time = now.strftime("%Y%m%dT%H%M%SZ")
    headers = {"content-type": _FORM, "host": urlsplit(url).netloc, "x-amz-date": time}
    if credentials.session_token:
        headers["x-amz-security-token"] = credentials.session_token
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    request = f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
    scope = f"{time[:8]}/{region}/{service}/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{credentials.secret_access_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    credential = f"{credentials.access_key_id}/{scope}"
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return headers


async def _credentials(fetch: Fetch, imds: InstanceMetadata, region: str) -> Credentials:
    """Those of the environment, of the pod's service account, of the pod, or of the instance, in this order."""
    environ = os.environ
    if environ.get("AWS_ACCESS_KEY_ID") and environ.get("AWS_SECRET_ACCESS_KEY"):
        return Credentials(
            environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"], environ.get("AWS_SESSION_TOKEN", "")
        )
    if environ.get("AWS_WEB_IDENTITY_TOKEN_FILE") and environ.get("AWS_ROLE_ARN"):
        return await _assumed(fetch, region)
    if environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        token_file = environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "")
        headers = {"Authorization": _read(token_file)} if token_file else {}
        return _from_json(await fetch.json(environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"], headers=headers))
    folder = "/latest/meta-data/iam/security-credentials/"
    role = (await imds.text(folder)).split("\n")[0].strip()
    return _from_json(await imds.json(folder + role))


async def _assumed(fetch: Fetch, region: str) -> Credentials:
    url = os.environ.get("AWS_ENDPOINT_URL_STS") or f"https://sts.{region}.{_domain(region)}"
    form = {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": os.environ["AWS_ROLE_ARN"],
        "RoleSessionName": os.environ.get("AWS_ROLE_SESSION_NAME") or "tailrace",
        "WebIdentityToken": _read(os.environ["AWS_WEB_IDENTITY_TOKEN_FILE"]),
    }
    answer = await fetch.text(url, method="POST", headers={"content-type": _FORM}, body=urlencode(form).encode())
    found = dict(_leaves(answer))
    return _from_json({**found, "Token": found.get("SessionToken", "")})


def _from_json(found: dict[str, Any]) -> Credentials:
    key, secret = found.get("AccessKeyId"), found.get("SecretAccessKey")
    if not isinstance(key, str) or not isinstance(secret, str):
        raise DetectionError("there are no credentials for the EC2 API")
    return Credentials(key, secret, str(found.get("Token") or ""))


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DetectionError(f"the token file {path} cannot be read") from error


def _leaves(text: str) -> list[tuple[str, str]]:
    """(Name, text) of each element of an answer that contains no other ones."""
    return [(name, html.unescape(value)) for name, value in _LEAF.findall(text)]


def _domain(region: str) -> str:
    return "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
