"""Real servers on free ports.

Without the binaries the tests are skipped with the reason; with TAILRACE_REQUIRE_BACKENDS they fail.
"""

import contextlib
import dataclasses
import os
import shutil
import socket
import subprocess
import time
import types
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import trustme

CACHE = Path(
    os.environ.get("TAILRACE_BACKENDS")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tailrace-backends"
)
JAEGER = """
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines: {{traces: {{receivers: [otlp], exporters: [jaeger_storage_exporter]}}}}
  telemetry: {{metrics: {{level: none}}}}
extensions:
  jaeger_storage: {{backends: {{memory: {{memory: {{max_traces: 100000}}}}}}}}
  jaeger_query:
    storage: {{traces: memory}}
    http: {{endpoint: "127.0.0.1:{query}"}}
    grpc: {{endpoint: "127.0.0.1:{query_grpc}"}}
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{otlp}"}}}}}}}}
exporters: {{jaeger_storage_exporter: {{trace_storage: memory}}}}
"""
LOKI = """
auth_enabled: false
server: {{http_listen_address: 127.0.0.1, http_listen_port: {http}, grpc_listen_address: 127.0.0.1, grpc_listen_port:
    {grpc}, log_level: warn}}
common:
  instance_addr: 127.0.0.1
  path_prefix: {folder}
  replication_factor: 1
  ring: {{kvstore: {{store: inmemory}}}}
  storage: {{filesystem: {{chunks_directory: {folder}/chunks, rules_directory: {folder}/rules}}}}
schema_config:
  configs: [{{from: 2024-01-01, store: tsdb, object_store: filesystem, schema: v13, index: {{prefix: index_, period:
      24h}}}}]
ingester: {{lifecycler: {{min_ready_duration: 0s}}}}
analytics: {{reporting_enabled: false}}
"""


def binary(name):
    path = CACHE / name
    if not path.exists():
        missing(f"{name} is not built: run `make backends`")
    return str(path)


def missing(message):
    if os.environ.get("TAILRACE_REQUIRE_BACKENDS"):
        pytest.fail(message)
    pytest.skip(message)


@dataclasses.dataclass(frozen=True)
class Engine:
    """One of the two gRPC implementations, with the keys that select it in a receiver and in an exporter."""

    name: str

    @property
    def server(self):
        return ", transport: grpcio" if self.name == "grpcio" else ""

    @property
    def client(self):
        return f", transport: {self.name}"


@pytest.fixture(params=["http2", "grpcio"])
def engine(request):
    return Engine(request.param)


@pytest.fixture(scope="session")
def http2():
    """The http2 engine, for tests of what only it supports."""
    return Engine("http2")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """A folder with ca.pem, and with cert.pem and key.pem for localhost."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    return folder


@pytest.fixture(scope="session")
def nginx_program():
    """The nginx program. As root on Debian it is installed if it is missing, but not started."""
    if not shutil.which("nginx"):
        if os.geteuid() or not shutil.which("apt-get"):
            missing("nginx is missing: install it (Debian: sudo apt-get install nginx-light)")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        for command in (["update", "-qq"], ["install", "-y", "-qq", "nginx-light"]):
            subprocess.run(["apt-get", *command], env=environment, check=True, stdout=subprocess.DEVNULL)
    return shutil.which("nginx")


def free_ports(count):
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@contextlib.contextmanager
def running(arguments, ready_url, folder):
    log = (folder / "server.log").open("wb")
    process = subprocess.Popen(arguments, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    try:
        deadline = time.monotonic() + 60
        while True:
            with (
                contextlib.suppress(urllib.error.URLError, OSError),
                urllib.request.urlopen(ready_url, timeout=2) as answer,
            ):
                if answer.status == 200:
                    break
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(
                    f"{arguments[0]} is not ready:\n{(folder / 'server.log').read_text(errors='replace')[-3000:]}"
                )
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "prometheus.yml").write_text("global: {scrape_interval: 1h}\n")
    program = binary("prometheus")
    (port,) = free_ports(1)
    arguments = [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}",
                 "--web.enable-remote-write-receiver", "--log.level=warn"]  # fmt: skip
    with running(arguments, f"http://127.0.0.1:{port}/-/ready", folder):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def scraping(tmp_path_factory):
    """Starts a Prometheus for scrape configurations (as text), as a context manager that returns its URL."""

    @contextlib.contextmanager
    def start(scrape_configs, *flags):
        folder = tmp_path_factory.mktemp("scraping")
        config = f"global: {{scrape_interval: 500ms, scrape_timeout: 400ms}}\nscrape_configs:\n{scrape_configs}"
        (folder / "prometheus.yml").write_text(config)
        program = binary("prometheus")
        (port,) = free_ports(1)
        arguments = [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                     f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn", *flags]  # fmt: skip
        with running(arguments, f"http://127.0.0.1:{port}/-/ready", folder):
            yield f"http://127.0.0.1:{port}"

    return start


@pytest.fixture(scope="session")
def loki(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loki")
    program = binary("loki")
    http, grpc = free_ports(2)
    (folder / "loki.yaml").write_text(LOKI.format(http=http, grpc=grpc, folder=folder))
    with running([program, f"-config.file={folder}/loki.yaml"], f"http://127.0.0.1:{http}/ready", folder):
        yield f"http://127.0.0.1:{http}"


@pytest.fixture(scope="session")
def jaeger(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jaeger")
    program = binary("jaeger")
    query, query_grpc, otlp = free_ports(3)
    (folder / "jaeger.yaml").write_text(JAEGER.format(query=query, query_grpc=query_grpc, otlp=otlp))
    with running([program, f"--config={folder}/jaeger.yaml"], f"http://127.0.0.1:{query}/api/services", folder):
        yield f"http://127.0.0.1:{query}", f"127.0.0.1:{otlp}"


@pytest.fixture(scope="session")
def server():
    """Starts one more server in a test, from ``binary`` and ``running``."""
    return types.SimpleNamespace(binary=binary, running=running)


@pytest.fixture(scope="session")
def pdata_program():
    return binary("pdata")
