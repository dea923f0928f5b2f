"""Checks the layers for .pyx and .pxd files, which import-linter does not read.

A kernel below ``collector/wire`` may import only ``collector.wire``; one below another package of ``collector``
(``transport``) also its own package; a component's ``_encode.pyx`` may import ``collector.wire`` and the component's
package.
"""

import re
import sys
from pathlib import Path

ROOTS = ("collector", "config", "receivers", "processors", "exporters", "connectors", "extensions")
IMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+c?import|c?import\s+([\w.]+))", re.MULTILINE)


def violations(root: Path) -> list[str]:
    """One line for each import that points outwards."""
    found = []
    for path in sorted(p for r in ROOTS for p in (root / r).rglob("*.p[yx][xd]")):
        package = ".".join(path.relative_to(root).parts[:-1])
        own = ".".join(package.split(".")[:2])  # collector.transport.http2 belongs to collector.transport
        allowed = ("collector.wire",) if own == "collector.wire" else ("collector.wire", own)
        for match in IMPORT.finditer(path.read_text()):
            target = match[1] or match[2]
            if target.split(".")[0] in ROOTS and not any(target == a or target.startswith(a + ".") for a in allowed):
                found.append(f"{path.relative_to(root)}: imports {target}; a kernel may import {' and '.join(allowed)}")
    return found


if __name__ == "__main__":
    lines = violations(Path(__file__).resolve().parent.parent)
    print("\n".join(lines) or "kernels: every import points inward")  # noqa: T201 - a command's output
    sys.exit(bool(lines))
