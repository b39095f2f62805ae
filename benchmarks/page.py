"""Turn measured records, as ``run.py --json`` writes them, into the documentation's page."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

from run import OURS, table, times_table

Record = dict[str, Any]


def peer_ratios(record: Record) -> dict[str, float]:
    """Return each peer's time as a multiple of ours, the median over rounds.

    Where a workload was run once, the ratio is that of the only round.
    """
    programs = record["programs"]
    ours = programs[OURS]["cold_seconds"]
    return {
        name: median(program["ratios_to_ours"] or [program["cold_seconds"] / ours])
        for name, program in programs.items()
        if name != OURS
    }


def losses(records: list[Record]) -> str:
    """Return a table of all peers that took less time or less memory than ours."""
    rows = []
    for record in records:
        ratios, ours = peer_ratios(record), record["programs"][OURS]
        for name, ratio in ratios.items():
            peer = record["programs"][name]
            memory = peer["peak_mib"] / ours["peak_mib"] if peer["peak_mib"] else 1.0
            if ratio < 1.0 or memory < 1.0:
                rows.append([_code(record), name, f"{ratio:.2f}", f"{memory:.2f}"])
    return table(["workload", "program", "its time / ours", "its peak memory / ours"], rows)


def page(records: list[Record]) -> str:
    """Return the measured part of the page as Markdown."""
    machine = ", ".join(f"{key}: {value}" for key, value in records[0]["machine"].items())
    dates = sorted({record["date"] for record in records})
    parts = [
        f"Measured {' and '.join(dates)} on a shared machine ({machine}).",
        "## Where others are faster or smaller",
        losses(records),
    ]
    for record in records:
        parts += [
            _heading(record),
            times_table(record["compared"], record["programs"]),
            *(f"{peer} was left out: {reason}." for peer, reason in record["skipped"].items()),
        ]
    return "\n\n".join(parts) + "\n"


def chart(records: list[Record], path: Path) -> None:
    """Draw each peer's time as a multiple of ours, a row for each workload."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 0.9 + 0.55 * len(records)), layout="constrained")
    ax = figure.subplots()
    for row, record in enumerate(records):
        ordered = sorted(peer_ratios(record).items(), key=lambda pair: pair[1])
        for i, (name, ratio) in enumerate(ordered):
            faster = ratio < 1.0
            ax.plot(ratio, row, "s" if faster else "o", color="C3" if faster else "C0")
            above = i % 2 == 0
            ax.annotate(
                name,
                (ratio, row),
                xytext=(0, 5 if above else -5),
                textcoords="offset points",
                ha="center",
                va="bottom" if above else "top",
                fontsize=7,
            )
    ax.axvline(1.0, color="0.6", zorder=0)
    ax.set_xscale("log")
    ax.set_yticks(range(len(records)), [_code(record) for record in records])
    ax.set_ylim(len(records) - 0.4, -0.6)
    ax.margins(x=0.12)
    ax.set_xlabel("time of the other program / ours (squares: faster than ours)")
    figure.savefig(path)


def write_page(source: Path, folder: Path) -> None:
    """Write ``benchmarks.md`` and ``benchmarks.svg`` into a folder."""
    records = json.loads(source.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmarks.md").write_text(page(records))
    chart([record for record in records if peer_ratios(record)], folder / "benchmarks.svg")


def _code(record: Record) -> str:
    return str(record["workload"].split(":")[0])


def _heading(record: Record) -> str:
    title, _, formula = record["workload"].partition(": `")
    return f"## {title}\n\nThe model is `{formula}."
