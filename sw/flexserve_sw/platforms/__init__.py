"""Platform files: what the parts of the phone that are not RTL cost, each value with unit, range and source."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import UserError

__all__ = ["Cost", "Cpu", "Flash", "Dram", "Platform", "Scale", "System", "load_platform"]


@dataclass(frozen=True)
class Cost:
    """A figure from outside: ``value`` in ``unit``, plausible between ``low`` and ``high``."""

    value: float
    unit: str
    low: float
    high: float
    source: str


@dataclass(frozen=True)
class Scale:
    """How much smaller than the phone's the simulated SoC's array is."""

    npu_mac_ratio: Cost


@dataclass(frozen=True)
class Cpu:
    """Rates of the CPU cluster."""

    int8_rate: Cost
    stream_rate: Cost
    float_rate: Cost
    exp_flops: Cost
    copy_rate: Cost
    aes_rate: Cost
    smc_round_trip: Cost


@dataclass(frozen=True)
class System:
    """Costs of the operating system and of the serving framework's start."""

    init_rate: Cost
    npu_driver_init: Cost
    page_allocation: Cost
    migration_rate: Cost
    occupied_share: Cost
    cma_occupied: Cost


@dataclass(frozen=True)
class Dram:
    """Timing of memory behind the filter."""

    latency: Cost
    bandwidth: Cost


@dataclass(frozen=True)
class Flash:
    """Timing of storage behind its DMA device."""

    latency: Cost
    bandwidth: Cost


_UNITS = {
    "npu_mac_ratio": "1", "int8_rate": "MAC/s", "stream_rate": "B/s", "float_rate": "FLOP/s", "exp_flops": "FLOP",
    "copy_rate": "B/s", "aes_rate": "B/s", "smc_round_trip": "s", "init_rate": "B/s", "npu_driver_init": "s",
    "page_allocation": "s", "migration_rate": "B/s", "occupied_share": "1", "cma_occupied": "1",
    "latency": "s", "bandwidth": "B/s",
}  # fmt: skip


@dataclass(frozen=True)
class Platform:
    """Costs turned into cycles of a clock of ``clock_hz``."""

    name: str
    scale: Scale
    cpu: Cpu
    system: System
    dram: Dram
    flash: Flash

    @staticmethod
    def seconds(cost: Cost, clock_hz: int) -> int:
        """Cycles that a cost in seconds takes."""
        return round(cost.value * clock_hz)

    @staticmethod
    def at_rate(amount: float, rate: Cost, clock_hz: int) -> int:
        """Cycles that ``amount`` takes at a rate per second, rounded up."""
        return math.ceil(amount * clock_hz / rate.value)

    @staticmethod
    def per_cycle(rate: Cost, clock_hz: int) -> float:
        """A rate per second as a rate per cycle."""
        return rate.value / clock_hz


def load_platform(name: str | None = None) -> Platform:
    """Read a platform file: a path, or the name of one that comes with the package (``phone`` by default).

    Raises :class:`UserError` with one sentence if it is missing, not TOML, incomplete, or has an impossible value.
    """
    name = name or "phone"
    packaged = resources.files(__package__) / f"{name}.toml"
    try:
        text = packaged.read_text("utf-8") if packaged.is_file() else Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"Platform file {name!r} can't be read ({error}); give the path of a TOML file, or 'phone'."
        ) from error
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"Platform file {name!r} is not TOML: {error}; mend that line.") from error
    return Platform(
        str(tables.get("name", name)),
        Scale(**_costs(name, tables, "scale", Scale)),
        Cpu(**_costs(name, tables, "cpu", Cpu)),
        System(**_costs(name, tables, "system", System)),
        Dram(**_costs(name, tables, "dram", Dram)),
        Flash(**_costs(name, tables, "flash", Flash)),
    )


def _costs(name: str, tables: dict[str, Any], table: str, kind: type[Any]) -> dict[str, Cost]:
    wanted = [field.name for field in fields(kind)]
    entries = tables.get(table)
    if not isinstance(entries, dict) or sorted(entries) != sorted(wanted):
        raise UserError(f"Platform file {name!r} must have a table [{table}] with exactly {', '.join(wanted)}.")
    return {entry: _cost(name, f"{table}.{entry}", entries[entry]) for entry in wanted}


def _cost(name: str, path: str, entry: Any) -> Cost:
    where = f"{path} of platform file {name!r}"
    unit = _UNITS[path.partition(".")[2]]
    if not isinstance(entry, dict) or sorted(entry) != ["range", "source", "unit", "value"]:
        raise UserError(f"Entry {where} must have value, unit, range and source.")
    bounds = entry["range"]
    if not isinstance(bounds, list) or len(bounds) != 2:
        raise UserError(f"Entry {where} must give its range as [lowest, highest].")
    numbers = [entry["value"], *bounds]
    if any(isinstance(x, bool) or not isinstance(x, int | float) or not math.isfinite(x) for x in numbers):
        raise UserError(f"Entry {where} must have finite numbers as value and range.")
    value, low, high = (float(x) for x in numbers)
    if entry["unit"] != unit:
        raise UserError(f"Entry {where} must be in {unit}, not {entry['unit']!r}.")
    if not low <= value <= high:
        raise UserError(f"Entry {where} must lie in its own range {low:g} to {high:g}, not {value:g}.")
    if value < 0 or (value == 0 and unit not in ("s", "1")):
        raise UserError(f"Entry {where} must be positive, not {value:g}.")
    if path == "system.occupied_share" and value > 0.95:
        raise UserError(f"Entry {where} must leave memory to work in: at most 0.95, not {value:g}.")
    return Cost(value, unit, low, high, str(entry["source"]))
