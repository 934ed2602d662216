"""``flexserve soak``: the soak campaign of the filter, or one segment of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flexserve_sw.errors import UserError

from ..compiler import build_root
from ..soak.campaign import Campaign, Finding, run_segment
from ..soak.simulator import VARIANTS, Bench, bench

__all__ = ["SoakOptions", "soak"]


@dataclass(frozen=True, kw_only=True)
class SoakOptions:
    """The command line of ``flexserve soak``; see its help."""

    transactions: int
    variants: tuple[str, ...]
    seed: int
    segment: int | None
    waves: Path | None
    output: Path | None


def soak(options: SoakOptions, console: Console) -> bool:
    """Run it; return whether nothing differed and every class of events came up."""

    def tell(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    if options.transactions < 1:
        raise UserError(f"A soak needs at least one transaction, not {options.transactions}.")
    variants = options.variants or tuple(VARIANTS)
    if options.waves is not None and (options.segment is None or len(variants) != 1):
        raise UserError("Waveforms are for one segment of one variant: give --segment and --variant too.")
    benches = {name: bench(name, waves=options.waves is not None, progress=tell) for name in variants}
    try:
        if options.segment is not None:
            return _segments(options, benches, tell)
        campaign = Campaign(
            options.output or build_root() / "soak", benches, transactions=options.transactions, seed=options.seed
        )
        summary = campaign.run(tell)
    except Finding as finding:
        tell(f"MISMATCH {finding}")
        return False
    table = Table(title="Soak campaign", title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("what was seen")
    table.add_column("times", justify="right")
    for name, count in summary["seen"].items():
        table.add_row(name, f"{count:,}")
    console.print(table)
    tell(
        f"{summary['transactions']:,} transactions and {summary['commands']:,} commands "
        f"in {summary['cycles']:,} cycles, "
        f"{summary['mismatches']} mismatches; "
        f"{summary['cpu_seconds']:,.0f} s of one core, {summary['seconds']:,.0f} s in all."
    )
    for name in summary["missing"]:
        tell(f"Never seen: {name}")
    return not summary["missing"]


def _segments(options: SoakOptions, benches: Mapping[str, Bench], tell: Callable[[str], None]) -> bool:
    assert options.segment is not None
    for name, made in benches.items():
        waves = options.waves and options.waves.with_suffix(f".{made.build.waves}").resolve()
        segment = run_segment(made, variant=name, seed=options.segment, waves=waves)
        tell(f"{name}, seed {options.segment}: {segment.seen['transactions']:,} transactions, no mismatch")
    return True
