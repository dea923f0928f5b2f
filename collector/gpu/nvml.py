"""GPUs through NVIDIA's own library: module ``pynvml`` of the distribution ``nvidia-ml-py``.

``nvmlDeviceGetFieldValues`` is the primary call: it returns energy, power, throttle and PCIe counters at once. What a
device cannot report is learnt once and not queried again, and a value that means "not available" never leaves this
module. Under MIG, memory and identity are those of the slices; power and energy exist only for the board, and
utilisation for neither (docs/reference/gpu.md, rules 8 to 10).
Source: nvml.h 13; the field ids are "guaranteed never to change", so their numbers are written here.
"""

import importlib
import math
from collections.abc import Callable, Sequence
from functools import partial
from math import nan
from typing import Any, Final

from collector.gpu.backend import BackendUnavailableError, Device, LayoutChangedError, Process, Reading
from collector.gpu.processes import ProcessTable

__all__ = ["NvmlBackend"]

_ENERGY_MJ: Final = 83
_POWER_AVERAGE_MW: Final = 185
_POWER_INSTANT_MW: Final = 186
_THROTTLE_NS: Final = (74, 75, 269, 270, 271)  # in the order of THROTTLE_REASONS
_PCIE_TRANSMIT_BYTES: Final = 197
_PCIE_RECEIVE_BYTES: Final = 198
_FIELDS: Final = (
    _ENERGY_MJ,
    _POWER_INSTANT_MW,
    _POWER_AVERAGE_MW,
    *_THROTTLE_NS,
    _PCIE_TRANSMIT_BYTES,
    _PCIE_RECEIVE_BYTES,
)
_VALUE_MEMBERS: Final = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")  # by nvmlValueType_t

# NVML_INIT_FLAG_NO_GPUS | NO_ATTACH: having no GPU is not an error, and one lost GPU must not hide the others
_INIT_FLAGS: Final = 1 | 2
# permanent: INVALID_ARGUMENT NOT_SUPPORTED NO_PERMISSION FUNCTION_NOT_FOUND …
_NOT_SUPPORTED: Final = frozenset({2, 3, 4, 13, 22, 25, 26})
_LOST: Final = frozenset({15, 16})  # GPU_IS_LOST, RESET_REQUIRED
_GPU_NOT_FOUND: Final = 28
_REASONS: Final = {
    1: "no_driver", 4: "no_permission", 9: "no_driver", 12: "no_library", 13: "no_library", 18: "driver_mismatch",
    28: "no_device",
}  # fmt: skip
"""The errors that concern the driver as a whole, with the words for the metric."""
_DRIVER_GONE: Final = frozenset({1, 9, 12, 18})

# NVML's and DCGM's values for "not available" are at the upper end of their type (a DCGM blank has been seen as
# 9223372036854775794).
_BLANK_64: Final = 0x7FFF_FFFF_FFFF_FFF0
_BLANK_32: Final = 0xFFFF_FFFF
_BLANK_32_SIGNED: Final = 0x7FFF_FFF0
_MAX_POWER_W: Final = 20_000.0  # no board draws as much; garbage values do exceed it
# What changes slowly (processes, errors, codecs, the layout) is read once per second.
_SLOW_INTERVAL_NS: Final = 1_000_000_000
_MEMORY_V2: Final = 0x0200_0028
_TEMPERATURE_SENSOR_GPU: Final = 0
_ECC_CORRECTED: Final = 0
_ECC_UNCORRECTED: Final = 1
_ECC_VOLATILE: Final = 0


class NvmlBackend:
    """All devices that the driver shows to this process."""

    source = "nvml"

    def __init__(self, processes: ProcessTable | None = None) -> None:
        self._processes = processes or ProcessTable()
        self._nvml: Any = None
        self._is_initialised = False
        self._handles: list[_Handle] = []
        self._known: dict[str, Device] = {}
        self._board_count = 0
        self._slow_at = 0

    def open(self, now_unix_nano: int) -> Sequence[Device]:  # noqa: ARG002 - Backend's signature
        """Load the library and return the boards and MIG slices."""
        self._initialise()
        driver = _text(self._call(self._nvml.nvmlSystemGetDriverVersion, default=""))
        handles: list[_Handle] = []
        count = self._count()
        for index in range(count):
            handles += self._board(index, driver)
        if not handles:
            raise BackendUnavailableError("no_device", "the NVIDIA driver does not expose any GPU to this process")
        self._handles, self._slow_at, self._board_count = handles, 0, count
        self._known = {handle.device.index: handle.device for handle in handles}
        return [handle.device for handle in handles]

    def read(self, now_unix_nano: int) -> Sequence[Reading]:
        """One reading per device."""
        if now_unix_nano - self._slow_at >= _SLOW_INTERVAL_NS or now_unix_nano < self._slow_at:
            self._slow_at = now_unix_nano
            self._check_layout()
            pids = [handle.read_slow(self._nvml) for handle in self._handles]
            known = self._processes.look_up(pid for device_pids in pids for pid in device_pids or ())
            for handle, device_pids in zip(self._handles, pids, strict=True):
                handle.processes = tuple(known[pid] for pid in device_pids or () if pid in known)
                handle.process_count = None if device_pids is None else len(set(device_pids))
        readings = []
        for handle in self._handles:
            try:
                readings.append(handle.read(self._nvml))
            except _LostError:
                readings.append(Reading(is_lost=True))
        return readings

    def close(self) -> None:
        """Shut down NVML."""
        if self._is_initialised:
            self._is_initialised = False
            self._call(self._nvml.nvmlShutdown, default=None)
        self._handles = []

    def _initialise(self) -> None:
        if self._is_initialised:
            return
        try:
            self._nvml = importlib.import_module("pynvml")
        # A broken installation, or the import hook of the deprecated package, must not stop the service.
        except Exception as exc:
            raise BackendUnavailableError("no_module", f"cannot import the Python package nvidia-ml-py: {exc}") from exc
        try:
            self._nvml.nvmlInitWithFlags(_INIT_FLAGS)
        except Exception as exc:  # NVMLError, or whatever ctypes raises for a damaged library
            reason = _REASONS.get(_code(exc), "error")
            raise BackendUnavailableError(reason, f"cannot initialise NVML: {exc}") from exc
        self._is_initialised = True

    def _count(self) -> int:
        try:
            return int(self._nvml.nvmlDeviceGetCount())
        except Exception as exc:
            raise BackendUnavailableError(
                _REASONS.get(_code(exc), "error"), f"cannot read the number of GPUs from NVML: {exc}"
            ) from exc

    def _board(self, index: int, driver: str) -> "list[_Handle]":
        """A board and its slices. A lost board is still listed as the device it was, but has no readings."""
        nvml = self._nvml
        try:
            board = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid = _text(nvml.nvmlDeviceGetUUID(board))
        except Exception as exc:
            if _code(exc) in _DRIVER_GONE:
                raise BackendUnavailableError(_REASONS[_code(exc)], f"NVML: {exc}") from exc
            known = self._known.get(str(index))
            return [_Handle(None, known)] if known is not None else []
        slices = self._slices(board)
        device = Device(
            id=uuid,
            index=str(index),
            model=_text(self._call(nvml.nvmlDeviceGetName, board, default="")),
            memory_limit_bytes=_memory(nvml, board)[1],
            is_partitioned=slices is not None,
            serial=_text(self._call(nvml.nvmlDeviceGetSerial, board, default="")),
            driver_version=driver,
        )
        handles = [_Handle(board, device)]
        for number, (part, part_uuid) in (slices or {}).items():
            handles.append(
                _Handle(
                    part,
                    Device(
                        id=part_uuid,
                        index=f"{index}:{number}",
                        model=_text(self._call(nvml.nvmlDeviceGetName, part, default="")) or device.model,
                        memory_limit_bytes=_memory(nvml, part)[1],
                        parent_id=uuid,
                        serial=device.serial,
                        driver_version=driver,
                    ),
                )
            )
        return handles

    def _slices(self, board: Any) -> dict[int, tuple[Any, str]] | None:
        """The MIG slices by index; None if the board is not in MIG mode."""
        nvml = self._nvml
        mode = self._call(nvml.nvmlDeviceGetMigMode, board, default=(0, 0))
        if not mode[0]:
            return None
        found = {}
        for number in range(self._call(nvml.nvmlDeviceGetMaxMigDeviceCount, board, default=0)):
            # NOT_FOUND means that there is no such slice
            part = self._call(nvml.nvmlDeviceGetMigDeviceHandleByIndex, board, number, default=None)
            uuid = "" if part is None else _text(self._call(nvml.nvmlDeviceGetUUID, part, default=""))
            if uuid:
                found[number] = (part, uuid)
        return found

    def _check_layout(self) -> None:
        expected = {handle.device.index: handle.device.id for handle in self._handles}
        boards = [handle for handle in self._handles if not handle.device.parent_id]
        if self._count() != self._board_count:  # also counts a board that was lost before its id could be read
            raise LayoutChangedError
        for handle in boards:
            if handle.handle is None:
                continue
            if (
                _text(self._call(self._nvml.nvmlDeviceGetUUID, handle.handle, default=handle.device.id))
                != handle.device.id
            ):
                raise LayoutChangedError
            slices = self._slices(handle.handle)
            if (slices is not None) != handle.device.is_partitioned and not self._is_lost(handle):
                raise LayoutChangedError
            slices_now = {f"{handle.device.index}:{number}": uuid for number, (_, uuid) in (slices or {}).items()}
            slices_before = {
                index: uuid for index, uuid in expected.items() if index.startswith(f"{handle.device.index}:")
            }
            if slices_now != slices_before and not self._is_lost(handle):
                raise LayoutChangedError

    def _is_lost(self, handle: "_Handle") -> bool:
        try:
            self._nvml.nvmlDeviceGetUUID(handle.handle)
        except Exception as exc:  # noqa: BLE001 - as in _initialise
            return _code(exc) in _LOST
        return False

    def _call(self, function: Callable[..., Any], *arguments: Any, default: Any) -> Any:
        """The result, or ``default`` if the call fails; ``read`` notices if the driver as a whole is gone."""
        try:
            return function(*arguments)
        except Exception:  # noqa: BLE001 - as in _initialise
            return default


class _LostError(Exception):
    """NVML reported GPU_IS_LOST or RESET_REQUIRED."""


class _Handle:
    """A device and what it has turned out to be able to report."""

    def __init__(self, handle: Any, device: Device) -> None:
        self.handle, self.device = handle, device
        self.processes: tuple[Process, ...] = ()
        self.process_count: int | None = None
        self._fields: list[int] = [] if device.parent_id else list(_FIELDS)
        self._unsupported: set[str] = set()
        self._slow: dict[str, float] = {}

    def read(self, nvml: Any) -> Reading:
        """The current reading. Raises _LostError, or BackendUnavailableError if the driver as a whole has gone."""
        if self.handle is None:
            raise _LostError
        fields = self._field_values(nvml)
        power = fields.get(_POWER_INSTANT_MW, nan)
        if math.isnan(power):
            power = fields.get(_POWER_AVERAGE_MW, nan)
        energy = fields.get(_ENERGY_MJ, nan)
        utilization = nan
        if not self.device.parent_id:
            if math.isnan(power):
                power = _valid(self._query("power", lambda: nvml.nvmlDeviceGetPowerUsage(self.handle)))
            if math.isnan(energy):
                energy = _valid(self._query("energy", lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)))
            if not self.device.is_partitioned:
                rates = self._query("utilization", lambda: nvml.nvmlDeviceGetUtilizationRates(self.handle))
                utilization = _percent(None if rates is None else rates.gpu)
        memory = self._query("memory", lambda: _memory_or_raise(nvml, self.handle))
        temperature = (
            nan
            if self.device.parent_id
            else _valid(self._query("temperature", lambda: _temperature(nvml, self.handle)))
        )
        if (
            not self.device.parent_id
            and memory is None
            and all(map(math.isnan, (utilization, power, energy, temperature)))
        ):
            raise _LostError  # a device that answers nothing is gone, whatever error the driver reports
        return Reading(
            utilization=utilization,
            memory_used_bytes=nan if memory is None else memory[0],
            power_w=power / 1000 if 0 <= power / 1000 <= _MAX_POWER_W else nan,
            energy_j=energy / 1000,
            temperature_c=temperature if -60 < temperature < 250 else nan,
            throttle_s=tuple(fields.get(field, nan) * 1e-9 for field in _THROTTLE_NS),
            pcie_transmit_bytes=fields.get(_PCIE_TRANSMIT_BYTES, nan),
            pcie_receive_bytes=fields.get(_PCIE_RECEIVE_BYTES, nan),
            encoder_utilization=self._slow.get("encoder_utilization", nan),
            decoder_utilization=self._slow.get("decoder_utilization", nan),
            errors_corrected=self._slow.get("errors_corrected", nan),
            errors_uncorrected=self._slow.get("errors_uncorrected", nan),
            processes=self.processes,
            process_count=self.process_count,
        )

    def read_slow(self, nvml: Any) -> list[int] | None:
        """Refresh what changes slowly; returns the pids that compute on the device, None if they are not known."""
        if self.handle is None:
            return None
        slow: dict[str, float] = {}
        try:
            if not self.device.parent_id and not self.device.is_partitioned:
                for name, function in (
                    ("encoder", "nvmlDeviceGetEncoderUtilization"),
                    ("decoder", "nvmlDeviceGetDecoderUtilization"),
                ):
                    answer = self._query(name, partial(getattr(nvml, function), self.handle))
                    slow[f"{name}_utilization"] = _percent(None if answer is None else answer[0])
            if not self.device.parent_id:
                for name, kind in (("errors_corrected", _ECC_CORRECTED), ("errors_uncorrected", _ECC_UNCORRECTED)):
                    slow[name] = _valid(
                        self._query(name, partial(nvml.nvmlDeviceGetTotalEccErrors, self.handle, kind, _ECC_VOLATILE))
                    )
            processes = self._query("processes", lambda: nvml.nvmlDeviceGetComputeRunningProcesses_v3(self.handle))
        except _LostError:
            return None
        self._slow = slow
        return None if processes is None else [int(process.pid) for process in processes]

    def _field_values(self, nvml: Any) -> dict[int, float]:
        if not self._fields:
            return {}
        values = self._query("fields", lambda: nvml.nvmlDeviceGetFieldValues(self.handle, self._fields))
        found = {}
        for value in values if values is not None else ():
            if value.nvmlReturn == 0:
                found[int(value.fieldId)] = _field_number(value)
            elif value.nvmlReturn in _LOST:
                raise _LostError
            elif value.nvmlReturn in _DRIVER_GONE:
                raise BackendUnavailableError(
                    _REASONS[value.nvmlReturn], f"NVML: field {value.fieldId} returned error {value.nvmlReturn}"
                )
            elif value.nvmlReturn in _NOT_SUPPORTED:
                self._fields = [field for field in self._fields if field != value.fieldId]
        return found

    def _query(self, name: str, call: Callable[[], Any]) -> Any:
        """The result of ``call``, None if it fails; a call that is not supported is not made again."""
        if name in self._unsupported:
            return None
        try:
            return call()
        except Exception as exc:
            code = _code(exc)
            if code in _LOST or code == _GPU_NOT_FOUND:
                raise _LostError from exc
            if code in _DRIVER_GONE:
                raise BackendUnavailableError(_REASONS[code], f"NVML: {exc}") from exc
            if code in _NOT_SUPPORTED or isinstance(exc, AttributeError):
                self._unsupported.add(name)
            return None


def _memory(nvml: Any, handle: Any) -> tuple[float, float]:
    """(used, total) in bytes; NaN if they are not known."""
    try:
        return _memory_or_raise(nvml, handle)
    except Exception:  # noqa: BLE001 - as in NvmlBackend._initialise
        return nan, nan


def _memory_or_raise(nvml: Any, handle: Any) -> tuple[float, float]:
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(
            handle, version=_MEMORY_V2
        )  # here "used" excludes what the driver reserves
    except Exception as exc:
        if _code(exc) not in _NOT_SUPPORTED:
            raise
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    used, total = _valid(memory.used), _valid(memory.total)
    return (used if used <= total else nan), total


def _temperature(nvml: Any, handle: Any) -> float:
    # nvmlDeviceGetTemperature is deprecated since version 13, but older libraries have only that.
    try:
        return float(nvml.nvmlDeviceGetTemperatureV(handle, _TEMPERATURE_SENSOR_GPU))
    except Exception as exc:
        if _code(exc) not in _NOT_SUPPORTED and not isinstance(exc, AttributeError):
            raise
        return float(nvml.nvmlDeviceGetTemperature(handle, _TEMPERATURE_SENSOR_GPU))


def _field_number(value: Any) -> float:
    kind = int(value.valueType)
    if not 0 <= kind < len(_VALUE_MEMBERS):
        return nan
    number = getattr(value.value, _VALUE_MEMBERS[kind])
    if kind in {1, 5} and number in range(_BLANK_32_SIGNED, _BLANK_32_SIGNED + 16):
        return nan
    if kind == 1 and number == _BLANK_32:
        return nan
    return _valid(number)


def _valid(number: Any) -> float:
    """The number, or NaN if it is absent, negative or one of the values that mean "not available"."""
    if number is None or not 0 <= number < _BLANK_64:
        return nan
    return float(number)


def _percent(number: Any) -> float:
    """A percentage as a share from 0 to 1; garbage above 100 has been seen and becomes NaN."""
    return number / 100 if number is not None and 0 <= number <= 100 else nan


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _code(exc: BaseException) -> int:
    """The nvmlReturn_t of an NVMLError, -1 for any other exception."""
    if type(exc).__name__ == "NVMLLibraryMismatchError":
        return 13
    value = getattr(exc, "value", -1)
    return value if isinstance(value, int) else -1
