"""The fuzz targets of the scan hold for a fixed set of damaged requests: a smoke test without atheris."""

import importlib.util
import random
from pathlib import Path
from types import ModuleType

import pytest


def target(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["fuzz_scan", "fuzz_index"])
def test_target_holds(name):
    """Bit flips, cuts, insertions and repetitions of valid bytes violate no property."""
    run = target(name).test_one_input
    rng = random.Random(20240607)
    for seed in target("corpus").seeds():
        for choice in range(14):
            for shift in (0, 1, 2, 200):
                run(bytes([choice, shift]) + seed)
                run(bytes([choice]) + seed)
        for _ in range(1500):
            wire = bytearray(seed)
            for _ in range(rng.choice((1, 1, 2, 4))):
                at = rng.randrange(len(wire) + 1)
                kind = rng.randrange(4)
                if kind == 0 and wire:
                    wire[at % len(wire)] ^= 1 << rng.randrange(8)
                elif kind == 1:
                    del wire[at : at + rng.choice((1, 8, 1000))]
                elif kind == 2:
                    wire[at:at] = rng.randbytes(rng.choice((1, 2, 4)))
                else:
                    wire[at:at] = wire[rng.randrange(len(wire) + 1) :][:30]
            run(bytes([rng.randrange(256), rng.randrange(256)]) + bytes(wire))
            run(bytes([rng.randrange(256)]) + bytes(wire))
