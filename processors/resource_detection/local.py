"""Detectors that ask nobody but this machine: env, system, lambda, heroku, gpu."""

import asyncio
import os
import platform
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote_plus

import psutil

from collector.gpu.backend import BackendUnavailableError
from collector.gpu.nvml import NvmlBackend
from processors.resource_detection.config import ResourceDetectionConfig
from processors.resource_detection.fetch import DetectionError

__all__ = ["detect_env", "detect_gpu", "detect_heroku", "detect_lambda", "detect_system"]

_LABEL: Final = re.compile(r"\s*([\x00-\x7f]{1,256}?)\s*=\s*([\x00-\x7f]{0,256}?)\s*(?:,|$)")
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "i686": "x86", "i386": "x86", "armv7l": "arm32"}
_CPU: Final = {
    "vendor_id": "host.cpu.vendor.id",
    "cpu family": "host.cpu.family",
    "model": "host.cpu.model.id",
    "model name": "host.cpu.model.name",
    "stepping": "host.cpu.stepping",
}
_HEROKU: Final = {
    "HEROKU_APP_ID": "heroku.app.id",
    "HEROKU_APP_NAME": "service.name",
    "HEROKU_DYNO_ID": "service.instance.id",
    "HEROKU_RELEASE_CREATED_AT": "heroku.release.creation_timestamp",
    "HEROKU_RELEASE_VERSION": "service.version",
    "HEROKU_SLUG_COMMIT": "heroku.release.commit",
}
_MIB: Final = 1024 * 1024


async def detect_env(config: ResourceDetectionConfig) -> dict[str, Any]:
    """The attributes in OTEL_RESOURCE_ATTRIBUTES: ``key=value,key=value``, with URL-encoded values."""
    del config
    text = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "").strip() or os.environ.get("OTEL_RESOURCE", "").strip()
    found: dict[str, Any] = {}
    place = 0
    while place < len(text):
        match = _LABEL.match(text, place)
        if match is None:
            raise DetectionError("OTEL_RESOURCE_ATTRIBUTES is not valid; expected key=value,key=value")
        found[match[1]] = unquote_plus(match[2])
        place = match.end()
    return found


async def detect_system(config: ResourceDetectionConfig) -> dict[str, Any]:
    """Host and operating system."""
    wanted = config.enabled("system")
    release = _os_release()
    found: dict[str, Any] = {
        "host.name": await asyncio.to_thread(_host_name, config.system.hostname_sources),
        "os.type": platform.system().lower(),
        "host.arch": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os.name": release.get("NAME"),
        "os.version": release.get("VERSION_ID"),
        "os.build.id": release.get("BUILD_ID"),
        "os.description": f"{release.get('PRETTY_NAME', platform.system())} ({' '.join(platform.uname()[:5])})",
        "host.id": _first_line("/etc/machine-id", "/var/lib/dbus/machine-id"),
    }
    if wanted & {"host.ip", "host.mac", "host.interface"}:
        found |= _interfaces()
    if any(name.startswith("host.cpu") for name in wanted):
        found |= _processor()
    return found


async def detect_lambda(config: ResourceDetectionConfig) -> dict[str, Any]:
    """AWS Lambda, from the environment of the function."""
    del config
    name = os.environ.get("AWS_LAMBDA_FUNCTION_NAME")
    if not name:
        return {}
    stream, group = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME"), os.environ.get("AWS_LAMBDA_LOG_GROUP_NAME")
    memory = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
    return {
        "cloud.provider": "aws",
        "cloud.platform": "aws_lambda",
        "cloud.region": os.environ.get("AWS_REGION"),
        "faas.name": name,
        "faas.version": os.environ.get("AWS_LAMBDA_FUNCTION_VERSION"),
        "faas.instance": stream,
        "faas.max_memory": int(memory) * _MIB if memory.isdecimal() else None,
        "aws.log.group.names": [group] if group else None,
        "aws.log.stream.names": [stream] if stream else None,
    }


async def detect_heroku(config: ResourceDetectionConfig) -> dict[str, Any]:
    """Heroku, from the environment of the dyno."""
    del config
    found = {key: os.environ[name] for name, key in _HEROKU.items() if os.environ.get(name)}
    return {"cloud.provider": "heroku", **found} if "heroku.app.id" in found else {}


async def detect_gpu(config: ResourceDetectionConfig) -> dict[str, Any]:
    """Number and models of the NVIDIA GPUs; nothing on machines without any."""
    del config

    def read() -> dict[str, Any]:
        backend = NvmlBackend()
        try:
            devices = backend.open(0)
        except BackendUnavailableError:
            return {}
        finally:
            backend.close()
        return {
            "host.gpu.count": len(devices),
            "host.gpu.models": sorted({device.model for device in devices}),
            "host.gpu.driver": devices[0].driver_version if devices else None,
        }

    return await asyncio.to_thread(read)


def _host_name(sources: tuple[str, ...]) -> str | None:
    """The name from the first source that has one."""
    name = socket.gethostname()
    for source in sources:
        try:
            match source:
                case "os":
                    found = name
                case "cname":
                    found = socket.getaddrinfo(name, None, flags=socket.AI_CANONNAME)[0][3]
                case "lookup":
                    found = socket.gethostbyaddr(socket.gethostbyname(name))[0]
                case _:
                    found = socket.getfqdn(name)
                    found = found if "." in found and not found.startswith("localhost") else ""
        except OSError:
            continue
        if found:
            return found.rstrip(".")
    raise DetectionError("no source of hostname_sources has a host name")


def _os_release() -> Mapping[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _first_line(*paths: str) -> str | None:
    for path in paths:
        try:
            text = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text:
            return text.splitlines()[0]
    return None


def _interfaces() -> dict[str, Any]:
    addresses, macs, names = [], [], []
    for name, entries in psutil.net_if_addrs().items():
        if name == "lo":
            continue
        names.append(name)
        for entry in entries:
            if entry.family in (socket.AF_INET, socket.AF_INET6):
                addresses.append(entry.address.partition("%")[0])
            elif entry.family == psutil.AF_LINK:
                macs.append(entry.address.upper().replace(":", "-"))
    return {"host.ip": addresses, "host.mac": macs, "host.interface": names}


def _processor() -> dict[str, Any]:
    """What /proc/cpuinfo says about the first processor."""
    found: dict[str, Any] = {}
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return found
    for line in text.partition("\n\n")[0].splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key in _CPU and value:
            found[_CPU[key]] = value
        elif key == "cache size" and value.split()[:1] and value.split()[0].isdecimal():
            found["host.cpu.cache.l2.size"] = int(value.split()[0])
    return found
