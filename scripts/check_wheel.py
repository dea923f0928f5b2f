"""Checks that a wheel holds our packages with their compiled kernels, and nothing else (ADR 1)."""

import sys
import zipfile
from pathlib import Path

ROOTS = {"collector", "config", "receivers", "processors", "exporters", "connectors", "extensions"}
DATA = ("config/default.yaml", "config/gateway.yaml", "collector/service/ui/index.html")


def problems(wheel: Path) -> list[str]:
    """What is wrong with the wheel, one line each."""
    names = zipfile.ZipFile(wheel).namelist()
    found = [
        f"unexpected top-level {root!r}"
        for root in sorted({n.split("/")[0] for n in names} - ROOTS)
        if not root.endswith(".dist-info")
    ]
    found += [f"missing package {root}" for root in sorted(ROOTS) if f"{root}/__init__.py" not in names]
    for source in Path().glob("*/**/*.pyx"):
        if source.parts[0] in ROOTS and not any(
            n.startswith(str(source.with_suffix("")) + ".") and n.endswith(".so") for n in names
        ):
            found.append(f"{source}: not compiled into the wheel")
    found += [
        f"missing {name}"
        for name in ("config/default.yaml", "config/gateway.yaml", "collector/service/ui/index.html")
        if name not in names
    ]
    return found


if __name__ == "__main__":
    lines = problems(Path(sys.argv[1]))
    name = Path(sys.argv[1]).name
    print("\n".join(lines) or f"{name}: packages, kernels and default configurations, nothing else")  # noqa: T201
    sys.exit(bool(lines))
