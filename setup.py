"""Builds the compiled kernels: every .pyx below the packages, each a module of its own beside its source."""

import os
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup

ROOTS = ("collector", "receivers", "processors", "exporters", "connectors", "extensions")
EXTRA_CFLAGS = os.environ.get("TAILRACE_CFLAGS", "").split()  # sanitizer builds
EXTRA_LDFLAGS = os.environ.get("TAILRACE_LDFLAGS", "").split()


def extensions() -> list[Extension]:
    return [
        Extension(
            ".".join(path.with_suffix("").parts),
            [str(path)],
            include_dirs=[np.get_include()],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
            # no debug tables: a fifth of the time
            extra_compile_args=["-O2", "-g0", "-Wno-unreachable-code", *EXTRA_CFLAGS],
            extra_link_args=EXTRA_LDFLAGS,
        )
        for root in ROOTS
        for path in sorted(Path(root).rglob("*.pyx"))
    ]


setup(
    ext_modules=cythonize(
        extensions(),
        nthreads=os.cpu_count() or 1,
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
        },
    )
)
