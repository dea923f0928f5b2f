"""Configurations of the shapes that public repositories have: how many of them validate and start.

The files were written for this test after the frequencies of components and keys in public configurations. Each one
that is not in ``public_shapes_missing.yaml`` must validate and start, with backends that cannot be reached; each one in
that list must fail for the reasons given there, so that the list can only become shorter.
"""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from collector.registry import Registry
from collector.service import Service
from config.load import Outcome, examine, load

DATA = Path(__file__).parents[1] / "data"
FILES = {path.stem: path for path in sorted((DATA / "public_shapes").glob("*.yaml"))}
MISSING = YAML(typ="safe").load((DATA / "public_shapes_missing.yaml").read_text(encoding="utf-8"))
RUNNING_MIN = 38
ANY_PORT = "127.0.0.1:0"
LISTENERS = {"otlp", "jaeger", "zipkin", "syslog", "health_check", "zpages", "pprof", "prometheus"}
"""Types whose ``endpoint`` or ``listen_address`` is an address that they listen at."""
VARIABLES = (
    "ELASTIC_TOKEN", "GATEWAY_TOKEN", "GRAFANA_INSTANCE", "GRAFANA_TOKEN", "HONEYCOMB_API_KEY", "LANGFUSE_AUTH",
    "POSTGRES_PASSWORD",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _variables(monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, "test")


def found_missing(name):
    """What a file needs that does not exist here, or its first error; None if it validates."""
    found = examine((str(FILES[name]),), (), Registry())
    lacks = sorted(
        f"{component.kind.value}/{component.id}"
        for component in found.components
        if component.outcome in {Outcome.ELSEWHERE, Outcome.UNKNOWN}
    )
    return lacks or (str(found.errors[0]) if found.errors else None)


def local(name, folder):
    """The file with ports that are free and directories of the test, as YAML."""
    document = YAML(typ="safe").load(FILES[name].read_text(encoding="utf-8").replace("/var/", f"{folder}/var/"))
    for kind in ("receivers", "extensions", "exporters"):
        for key, settings in document.get(kind, {}).items():
            listens = key.partition("/")[0] in LISTENERS and (kind != "exporters" or key.startswith("prometheus"))
            parts = [settings, *((settings or {}).get("protocols") or {}).values()]
            parts += [(settings or {}).get(transport) for transport in ("tcp", "udp")]
            for holder in parts if listens else ():
                for address in {"endpoint", "listen_address"} & set(holder or ()):
                    holder[address] = ANY_PORT
    for exporter in document["exporters"].values():
        if exporter and "path" in exporter:
            Path(exporter["path"]).parent.mkdir(parents=True, exist_ok=True)
    metrics = document["service"].setdefault("telemetry", {}).setdefault("metrics", {})
    metrics["address"] = ANY_PORT
    path = folder / "config.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(document, file)
    return str(path)


def test_most_of_the_shapes_are_expected_to_run():
    """There are at least 40 shapes, and the list of those that do not run names nothing else."""
    assert len(FILES) >= 40
    assert set(MISSING) < set(FILES)
    assert len(FILES) - len(MISSING) >= RUNNING_MIN
    print(f"{len(FILES) - len(MISSING)} of {len(FILES)} shapes run")


@pytest.mark.parametrize("name", MISSING)
def test_what_does_not_run_yet_fails_for_the_listed_reason(name):
    """If this fails because less is missing: shorten ``public_shapes_missing.yaml``."""
    reason, found = MISSING[name], found_missing(name)
    assert found is not None, f"{name} validates now: remove it from public_shapes_missing.yaml"
    assert reason in found if isinstance(reason, str) else found == reason


@pytest.mark.parametrize("name", [name for name in FILES if name not in MISSING])
async def test_the_others_validate_and_start(name, tmp_path):
    """The service becomes ready although no backend answers, and nothing is left in the ledger when it ends."""
    assert found_missing(name) is None
    service = Service(load((local(name, tmp_path),), (), Registry()), shutdown_timeout_s=5.0)
    try:
        await service.start()
    finally:
        await service.shutdown()
    assert service.ledger.imbalances() == []
