"""A C stand-in for the NVIDIA driver's library, under the real nvidia-ml-py.

For the tests of everything that reads GPUs.
"""

import ctypes
import itertools
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "gpu_library" / "nvml_stand_in.c"


class StandIn:
    """What the library is to be; the settings are described in its source."""

    def __init__(self, library):
        self._library = library

    def set(self, **settings):
        """``fail="nvmlDeviceGetName=3"``; a number of one device alone: ``**{"power@0": 100_000}``."""
        for name, value in settings.items():
            assert self._library.stand_in_set(name.encode(), str(value).encode()), f"{name} does not fit"

    def calls(self, function):
        """How often a function was called."""
        return self._library.stand_in_calls(function.encode())

    def field_calls(self, field):
        """How often a field id was asked for."""
        return self._library.stand_in_field_calls(field)

    @staticmethod
    def functions():
        """The names of all functions nvidia-ml-py can be made to call here."""
        words = SOURCE.read_text().replace("(", " ( ").split()
        names = {word for word, following in itertools.pairwise(words) if word.startswith("nvml") and following == "("}
        return sorted(names - {"nvmlErrorString"})


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory):
    """The folder that holds the stand-in as ``libnvidia-ml.so.1``."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler to build the stand-in for libnvidia-ml")
    pytest.importorskip("pynvml", reason="the extra `gpu` (nvidia-ml-py) is not installed")
    folder = tmp_path_factory.mktemp("nvml")
    flags = ["-Wall", "-Wextra", "-Werror", "-O1", "-fvisibility=hidden", "-shared", "-fPIC", "-pthread"]
    subprocess.run([compiler, *flags, "-o", folder / "libnvidia-ml.so.1", SOURCE], check=True)
    return folder


@pytest.fixture
def nvml(nvml_library, monkeypatch):
    """The stand-in in the place of the driver's library, with two healthy boards."""
    import pynvml

    library = ctypes.CDLL(str(nvml_library / "libnvidia-ml.so.1"))
    library.stand_in_reset()
    monkeypatch.setattr(pynvml, "nvmlLib", library)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    yield StandIn(library)
    library.stand_in_reset()  # also lets go of what hangs
