"""Time the fits of a workload, ours and the peers', with the agreement of their answers.

Each program runs in a process of its own that stays alive; the programs take turns, so that a busy
moment of the machine falls on all.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from workloads import WORKLOADS, Workload

WORKERS = Path(__file__).parent / "workers"
OURS = "sklearn_mackay"
PEERS = ("lme4", "glmm", "mixedlm-rs", "gpboost")
AGREEMENT = 0.1  # largest difference of two programs, in standard errors of a variance


class WorkerError(RuntimeError):
    """A program could not be started, or died."""


class Worker:
    """A process that fits the model once for each line it is sent."""

    def __init__(self, command: list[str]) -> None:
        self._stderr = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )
        self.versions: dict[str, str] = self._read()["versions"]

    def fit(self) -> dict[str, Any]:
        """Return seconds, variance_components, fixed_effects and criterion of one fit."""
        self._process.stdin.write("fit\n")
        self._process.stdin.flush()
        return self._read()

    def peak_memory(self) -> float | None:
        """Return the peak resident memory in MiB so far, None where /proc does not tell."""
        status = Path(f"/proc/{self._process.pid}/status")
        if not status.exists():
            return None
        lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(lines[0].split()[1]) / 1024

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
        self._stderr.close()

    def _read(self) -> dict[str, Any]:
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        self._process.wait()
        self._stderr.seek(0)
        said = self._stderr.read().strip().splitlines()
        raise WorkerError(said[-1] if said else f"exit status {self._process.returncode}")


@dataclass
class Result:
    """What one program did."""

    versions: dict[str, str]
    cold_seconds: float
    answer: dict[str, Any]
    warm_seconds: list[float] = field(default_factory=list)
    peak_mib: float | None = None


def command_of(program: str, name: str, fast: bool, peer_python: str, folder: str) -> list[str]:
    """Return the command that starts a program's worker."""
    if program == "lme4":
        if shutil.which("Rscript") is None:
            raise WorkerError("Rscript is not installed")
        workload = WORKLOADS[name]
        data = Path(folder) / "data.csv"
        workload.load(fast).to_csv(data, index=False)
        script = str(WORKERS / "fit_lme4.R")
        return ["Rscript", script, str(data), workload.formula, ",".join(workload.groups)]
    if program == OURS:
        interpreter, script = sys.executable, "fit_mackay.py"
    else:
        interpreter, script = peer_python, f"fit_{program.replace('-', '_')}.py"
    return [interpreter, str(WORKERS / script), name, *["fast"] * fast]


def start_workers(
    name: str, peers: list[str], fast: bool, peer_python: str
) -> tuple[dict[str, Worker], dict[str, str]]:
    """Start our worker and each peer's; a peer that does not start is skipped, with the reason."""
    workers, skipped = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for program in [OURS, *peers]:
            try:
                workers[program] = Worker(command_of(program, name, fast, peer_python, folder))
            except (WorkerError, OSError) as error:
                if program == OURS:
                    raise
                skipped[program] = str(error)
    return workers, skipped


def measure(workers: dict[str, Worker], repeats: int) -> dict[str, Result]:
    """Fit once cold with each program, then ``repeats`` times in turns."""
    results = {}
    for name, worker in workers.items():
        answer = worker.fit()
        results[name] = Result(worker.versions, answer.pop("seconds"), answer)
    for _ in range(repeats):
        for name, worker in workers.items():
            results[name].warm_seconds.append(worker.fit()["seconds"])
    for name, worker in workers.items():
        results[name].peak_mib = worker.peak_memory()
    return results


def agreement(answer: dict[str, Any], ours: dict[str, Any], data: Any) -> dict[str, float]:
    """Return how far an answer is from ours.

    Variances in units of their standard error, taken as ``variance sqrt(2 / levels)``, which
    is less than the true one.
    """
    distances = [0.0]
    for name, mine in ours["variance_components"].items():
        n_levels = len(data) if name == "residual" else data[name].nunique()
        variances = _diagonal(np.array(mine))
        difference = np.abs(_diagonal(np.array(answer["variance_components"][name])) - variances)
        distances += list(difference / (variances * np.sqrt(2 / n_levels)))
    return {
        "criterion_difference": answer["criterion"] - ours["criterion"],
        "variance_difference": float(max(distances)),
    }


def _diagonal(triangle: np.ndarray) -> np.ndarray:
    """Return the variances in a lower triangle, row by row."""
    order = int((np.sqrt(8 * len(triangle) + 1) - 1) / 2)
    return triangle[[(a + 1) * (a + 2) // 2 - 1 for a in range(order)]]


def machine() -> dict[str, Any]:
    """Return what the timings depend on."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _first_value("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "memory": _first_value("/proc/meminfo", "MemTotal"),
    }


def _first_value(path: str, key: str) -> str | None:
    if not Path(path).exists():
        return None
    lines = (line for line in Path(path).read_text().splitlines() if line.startswith(key))
    return next((line.split(":", 1)[1].strip() for line in lines), None)


def report(
    workload: Workload, fast: bool, results: dict[str, Result], skipped: dict[str, str]
) -> dict[str, Any]:
    """Return everything that was measured, ready for JSON."""
    ours = results[OURS]
    data = workload.load(fast)
    programs = {
        name: {
            "versions": result.versions,
            "cold_seconds": result.cold_seconds,
            "warm_seconds": result.warm_seconds,
            "ratios_to_ours": [
                b / a for a, b in zip(ours.warm_seconds, result.warm_seconds, strict=True)
            ],
            "peak_mib": result.peak_mib,
            **result.answer,
            **agreement(result.answer, ours.answer, data),
        }
        for name, result in results.items()
    }
    return {
        "workload": f"{workload.title}{' (small version)' * fast}: `{workload.formula}`",
        "machine": machine(),
        "programs": programs,
        "skipped": skipped,
    }


def markdown(record: dict[str, Any]) -> str:
    """Return the report as Markdown: times with agreement, then the answers themselves."""
    blocks = [
        record["workload"],
        ", ".join(f"{key}: {value}" for key, value in record["machine"].items()),
        _times_table(record["programs"]),
        _answers_table(record["programs"]),
        *(f"{peer} skipped: {reason}" for peer, reason in record["skipped"].items()),
    ]
    return "\n\n".join(blocks)


def _times_table(programs: dict[str, Any]) -> str:
    header = [
        "program",
        "warm, median s",
        "warm, range s",
        "first fit s",
        "times ours, median (range)",
        "peak MiB",
        "criterion - ours",
        "variances - ours, in s.e.",
    ]
    return _table(header, [_times_row(name, program) for name, program in programs.items()])


def _times_row(name: str, program: dict[str, Any]) -> list[str]:
    warm, ratios, peak = program["warm_seconds"], program["ratios_to_ours"], program["peak_mib"]
    none = "not run"
    return [
        f"{name} {next(iter(program['versions'].values()))}",
        f"{median(warm):.3f}" if warm else none,
        f"{min(warm):.3f} to {max(warm):.3f}" if warm else none,
        f"{program['cold_seconds']:.3f}",
        f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if warm else none,
        "unknown" if peak is None else f"{peak:.0f}",
        f"{program['criterion_difference']:.1e}",
        f"{program['variance_difference']:.1e}",
    ]


def _answers_table(programs: dict[str, Any]) -> str:
    header = ["answer", "variance components", "fixed effects", "criterion"]
    rows = [
        [
            name,
            "; ".join(
                f"{key} {', '.join(f'{x:.7g}' for x in values)}"
                for key, values in program["variance_components"].items()
            ),
            ", ".join(f"{x:.7g}" for x in program["fixed_effects"]),
            f"{program['criterion']:.5f}",
        ]
        for name, program in programs.items()
    ]
    return _table(header, rows)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def parse_arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", default="P2", choices=WORKLOADS, help="what to fit")
    parser.add_argument("--fast", action="store_true", help="small data, to check the agreement")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all figures here")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="warm fits of each")
    parser.add_argument("--peers", help="comma-separated; '' for none; default all that can")
    parser.add_argument(
        "--peer-python",
        default=sys.executable,
        metavar="PATH",
        help="interpreter that has the Python peers and pandas",
    )
    arguments = parser.parse_args()
    able = WORKLOADS[arguments.workload].peers
    asked = ",".join(able) if arguments.peers is None else arguments.peers
    arguments.peers = [peer for peer in asked.split(",") if peer]
    if unable := set(arguments.peers) - set(able):
        parser.error(f"cannot fit {arguments.workload}: {', '.join(sorted(unable))}")
    if arguments.repeats < 0:
        parser.error("--repeats must not be negative")
    return arguments


def main() -> None:
    """Measure, print the tables, write the JSON."""
    arguments = parse_arguments()
    workload = WORKLOADS[arguments.workload]
    workers, skipped = start_workers(
        arguments.workload, arguments.peers, arguments.fast, arguments.peer_python
    )
    try:
        results = measure(workers, arguments.repeats)
    finally:
        for worker in workers.values():
            worker.close()
    record = report(workload, arguments.fast, results, skipped)
    print(markdown(record))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")
    furthest = max(program["variance_difference"] for program in record["programs"].values())
    if furthest > AGREEMENT:
        sys.exit(f"Variances differ by {furthest:.2g} standard errors.")


if __name__ == "__main__":
    main()
