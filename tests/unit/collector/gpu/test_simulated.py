"""The simulated backend is deterministic and its figures are consistent."""

import pytest

from collector.gpu.config import LoadConfig, SimulatedConfig
from collector.gpu.simulated import SimulatedBackend

NOW = 1_770_000_000_000_000_000
SHAPES = ["constant", "sine", "square"]


def test_two_runs_agree_and_seeds_differ():
    """Devices and readings depend only on seed and time."""
    one, same, other = (SimulatedBackend(SimulatedConfig(gpus=2, seed=seed)) for seed in (1, 1, 2))
    assert one.open(NOW) == same.open(NOW)
    assert one.read(NOW) == same.read(NOW)
    assert {d.id for d in one.open(NOW)}.isdisjoint(d.id for d in other.open(NOW))
    assert one.read(NOW)[0] != one.read(NOW)[1]
    assert all(d.id.startswith("GPU-") for d in one.open(NOW))


@pytest.mark.parametrize("shape", SHAPES)
def test_energy_is_the_integral_of_power(shape):
    """In any period the energy counter grows by the integral of the power."""
    backend = SimulatedBackend(SimulatedConfig(load=LoadConfig(shape=shape, period="7s")))
    steps = 20_000
    begin, end = NOW, NOW + 13 * 10**9
    step = (end - begin) // steps
    integral = sum(backend.read(begin + step * n + step // 2)[0].power_w for n in range(steps)) * step * 1e-9
    grown = backend.read(end)[0].energy_j - backend.read(begin)[0].energy_j
    assert grown == pytest.approx(integral, rel=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_load_stays_in_its_bounds(shape):
    """The load stays between mean minus amplitude and mean plus amplitude."""
    backend = SimulatedBackend(SimulatedConfig(load=LoadConfig(shape=shape, mean=0.5, amplitude=0.25)))
    loads = [backend.read(NOW + n * 10**9)[0].utilization for n in range(120)]
    assert 0.25 <= min(loads) <= max(loads) <= 0.75
    assert sum(loads) / len(loads) == pytest.approx(0.5, abs=0.02)


def test_a_load_outside_0_and_1_is_refused():
    """A load that would have to be clipped is refused, because energy and power would disagree."""
    with pytest.raises(ValueError, match="amplitude must stay"):
        LoadConfig(mean=0.9, amplitude=0.2)
