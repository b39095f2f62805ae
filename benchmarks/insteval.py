"""Time the fit of InstEval: 73,421 ratings, three crossed factors, REML.

The model is ``y ~ service + (1 | s) + (1 | d) + (1 | dept)``. Each program runs in a process of its
own that stays alive; the programs take turns, so that a busy moment of the machine falls on all.
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

HERE = Path(__file__).parent
WORKERS = HERE / "workers"
DATA = HERE.parent / "tests" / "data" / "insteval.csv.gz"
REFERENCE = HERE.parent / "tests" / "data" / "insteval.json"
OURS = "sklearn_mackay"
PEERS = ("lme4", "glmm")


class WorkerError(RuntimeError):
    """A program could not be started, or died."""


class Worker:
    """A process that fits the model once for each line it is sent."""

    def __init__(self, command: list[str]) -> None:
        self._stderr = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [*command, str(DATA)],
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


def command_of(program: str, peer_python: str) -> list[str]:
    """Return the command that starts a program's worker."""
    if program == OURS:
        return [sys.executable, str(WORKERS / "fit_mackay.py")]
    if program == "glmm":
        return [peer_python, str(WORKERS / "fit_glmm.py")]
    if shutil.which("Rscript") is None:
        raise WorkerError("Rscript is not installed")
    return ["Rscript", str(WORKERS / "fit_lme4.R")]


def start_workers(peers: list[str], peer_python: str) -> tuple[dict[str, Worker], dict[str, str]]:
    """Start our worker and each peer's; a peer that does not start is skipped, with the reason."""
    workers = {OURS: Worker(command_of(OURS, peer_python))}
    skipped = {}
    for peer in peers:
        try:
            workers[peer] = Worker(command_of(peer, peer_python))
        except (WorkerError, OSError) as error:
            skipped[peer] = str(error)
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


def reference_answer() -> dict[str, Any]:
    """Return lme4's answer with its optimiser run to 1e-10, stored beside the data."""
    fit = json.loads(REFERENCE.read_text())["reml"]
    components = {name: value[0][0] for name, value in fit["varcomp"].items()}
    return {
        "variance_components": {**components, "residual": fit["sigma2"]},
        "fixed_effects": fit["fixef"],
        "criterion": fit["criterion"],
    }


def agreement(answer: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """Return how far an answer is from the reference."""
    ours, theirs = answer["variance_components"], reference["variance_components"]
    return {
        "criterion_difference": answer["criterion"] - reference["criterion"],
        "variance_relative_difference": max(abs(ours[k] / theirs[k] - 1) for k in theirs),
    }


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
    results: dict[str, Result], skipped: dict[str, str], reference: dict[str, Any]
) -> dict[str, Any]:
    """Return everything that was measured, ready for JSON."""
    ours = results[OURS].warm_seconds
    programs = {
        name: {
            "versions": result.versions,
            "cold_seconds": result.cold_seconds,
            "warm_seconds": result.warm_seconds,
            "warm_median": median(result.warm_seconds),
            "ratios_to_ours": [b / a for a, b in zip(ours, result.warm_seconds, strict=True)],
            "peak_mib": result.peak_mib,
            **result.answer,
            **agreement(result.answer, reference),
        }
        for name, result in results.items()
    }
    return {
        "workload": "InstEval, y ~ service + (1 | s) + (1 | d) + (1 | dept), REML",
        "machine": machine(),
        "programs": programs,
        "skipped": skipped,
        "reference": reference,
    }


def markdown(record: dict[str, Any]) -> str:
    """Return the report as Markdown: times with agreement, then the answers themselves."""
    blocks = [
        record["workload"],
        ", ".join(f"{key}: {value}" for key, value in record["machine"].items()),
        _times_table(record["programs"]),
        _answers_table({**record["programs"], "reference": record["reference"]}),
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
        "criterion - reference",
        "variances, max rel. diff.",
    ]
    return _table(header, [_times_row(name, program) for name, program in programs.items()])


def _times_row(name: str, program: dict[str, Any]) -> list[str]:
    warm, ratios, peak = program["warm_seconds"], program["ratios_to_ours"], program["peak_mib"]
    return [
        f"{name} {next(iter(program['versions'].values()))}",
        f"{program['warm_median']:.3f}",
        f"{min(warm):.3f} to {max(warm):.3f}",
        f"{program['cold_seconds']:.3f}",
        f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        "unknown" if peak is None else f"{peak:.0f}",
        f"{program['criterion_difference']:.1e}",
        f"{program['variance_relative_difference']:.1e}",
    ]


def _answers_table(answers: dict[str, Any]) -> str:
    components = list(answers["reference"]["variance_components"])
    effects = list(answers["reference"]["fixed_effects"])
    rows = [
        [name]
        + [f"{answer['variance_components'][key]:.7f}" for key in components]
        + [f"{answer['fixed_effects'][key]:.7f}" for key in effects]
        + [f"{answer['criterion']:.5f}"]
        for name, answer in answers.items()
    ]
    return _table(["answer", *components, *effects, "criterion"], rows)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def parse_arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all figures here")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="warm fits of each")
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated; '' for none")
    parser.add_argument(
        "--peer-python",
        default=sys.executable,
        metavar="PATH",
        help="interpreter that has glmm and pandas",
    )
    arguments = parser.parse_args()
    arguments.peers = [peer for peer in arguments.peers.split(",") if peer]
    if unknown := set(arguments.peers) - set(PEERS):
        parser.error(f"unknown peers: {', '.join(sorted(unknown))}")
    if arguments.repeats < 1:
        parser.error("--repeats must be at least 1")
    return arguments


def main() -> None:
    """Measure, print the tables, write the JSON."""
    arguments = parse_arguments()
    workers, skipped = start_workers(arguments.peers, arguments.peer_python)
    try:
        results = measure(workers, arguments.repeats)
    finally:
        for worker in workers.values():
            worker.close()
    record = report(results, skipped, reference_answer())
    print(markdown(record))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
