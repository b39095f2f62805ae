"""Time workloads with our program and the peers', and compare their answers.

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
from datetime import date
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from penalties import PENALTY_WORKLOADS, PenaltyWorkload
from workloads import WORKLOADS, Workload

WORKERS = Path(__file__).parent / "workers"
OURS = "sklearn_mackay"
EVERY_WORKLOAD = {**WORKLOADS, **PENALTY_WORKLOADS}
ANSWERS = ("variance_components", "fixed_effects", "criterion", "prediction", "r2")


class WorkerError(RuntimeError):
    """A program could not be started, or died."""


class Worker:
    """A process that times a fit, or predictions, once for each line it is sent."""

    def __init__(self, command: list[str]) -> None:
        self._stderr = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )
        self.versions: dict[str, str] = {}

    def wait(self) -> None:
        """Wait until the data are read."""
        self.versions = self._read()["versions"]

    def request(self) -> dict[str, Any]:
        """Return the seconds and the answers, those of ANSWERS that the program gives."""
        self._process.stdin.write("go\n")
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
    interpreter = sys.executable if program == OURS else peer_python
    if name in PENALTY_WORKLOADS:
        return [interpreter, str(WORKERS / "fit_penalties.py"), name, program, *["fast"] * fast]
    if program == "lme4":
        if shutil.which("Rscript") is None:
            raise WorkerError("Rscript is not installed")
        workload = WORKLOADS[name]
        data = Path(folder) / "data.csv"
        workload.load(fast).to_csv(data, index=False)
        script, groups = str(WORKERS / "fit_lme4.R"), ",".join(workload.groups)
        predictions = str(workload.predictions)
        return ["Rscript", script, str(data), workload.formula, groups, predictions]
    script = "fit_mackay.py" if program == OURS else f"fit_{program.replace('-', '_')}.py"
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
                skipped[program] = str(error)
        for program in list(workers):
            try:
                workers[program].wait()
            except WorkerError as error:
                if program == OURS:
                    raise
                skipped[program] = str(error)
                del workers[program]
    return workers, skipped


def measure(workers: dict[str, Worker], repeats: int) -> dict[str, Result]:
    """Ask each program once, cold, then ``repeats`` times in turns."""

    def ask(name: str) -> dict[str, Any]:
        try:
            return workers[name].request()
        except WorkerError as error:
            raise WorkerError(f"{name}: {error}") from None

    results = {}
    for name, worker in workers.items():
        answer = ask(name)
        results[name] = Result(worker.versions, answer.pop("seconds"), answer)
        answer["r2"] = [answer["r2"]] if "r2" in answer else None
    for _ in range(repeats):
        for name in workers:
            answer = ask(name)
            results[name].warm_seconds.append(answer["seconds"])
            if "r2" in answer:
                results[name].answer["r2"].append(answer["r2"])
    for name, worker in workers.items():
        results[name].peak_mib = worker.peak_memory()
    return results


def variance_difference(answer: dict[str, Any], ours: dict[str, Any], data: Any) -> float:
    """Return the largest difference of a variance, in units of its standard error.

    That is taken as ``variance sqrt(2 / levels)``, which is less than the true one.
    """
    distances = []
    for name, mine in ours["variance_components"].items():
        n_levels = len(data) if name == "residual" else data[name].nunique()
        variances = _diagonal(np.array(mine))
        difference = np.abs(_diagonal(np.array(answer["variance_components"][name])) - variances)
        distances += list(difference / (variances * np.sqrt(2 / n_levels)))
    return float(np.max(distances))


def prediction_difference(answer: dict[str, Any], ours: dict[str, Any], data: Any) -> float:
    """Return the difference of the predictions in units of the residual standard deviation."""
    (residual,) = ours["variance_components"]["residual"]
    return abs(answer["prediction"] - ours["prediction"]) / np.sqrt(residual)


def r2_difference(answer: dict[str, Any], ours: dict[str, Any], data: Any) -> float:
    """Return by how much the mean R2 of held-out rows is above ours."""
    return mean(answer["r2"]) - mean(ours["r2"])


# By the answer that a workload compares: the difference from ours, in words and as a number, and
# the largest that is no disagreement.
COMPARISONS = {
    "variance_components": ("variances - ours, in s.e.", variance_difference, 0.1),
    "prediction": ("prediction - ours, in residual s.d.", prediction_difference, 0.1),
    "r2": ("mean held-out R2 - ours", r2_difference, 0.02),
}


def agreement(
    workload: Workload | PenaltyWorkload, answer: dict[str, Any], ours: dict[str, Any], data: Any
) -> dict[str, float | None]:
    """Return how far an answer is from ours; None for what the program does not answer."""
    _, difference, _ = COMPARISONS[workload.compared]
    criterion = answer.get("criterion")
    comparable = answer.get(workload.compared) is not None
    return {
        "criterion_difference": None if criterion is None else criterion - ours["criterion"],
        "difference": difference(answer, ours, data) if comparable else None,
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
    workload: Workload | PenaltyWorkload,
    fast: bool,
    results: dict[str, Result],
    skipped: dict[str, str],
) -> dict[str, Any]:
    """Return everything that was measured, ready for JSON."""
    ours = results[OURS]
    data = workload.load(fast) if isinstance(workload, Workload) else None
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
            **agreement(workload, result.answer, ours.answer, data),
        }
        for name, result in results.items()
    }
    return {
        "workload": f"{workload.title}{' (small version)' * fast}: `{workload.formula}`",
        "date": date.today().isoformat(),
        "machine": machine(),
        "compared": COMPARISONS[workload.compared][0],
        "limit": COMPARISONS[workload.compared][2],
        "programs": programs,
        "skipped": skipped,
    }


def markdown(record: dict[str, Any]) -> str:
    """Return the report as Markdown: times with agreement, then the answers themselves."""
    blocks = [
        f"## {record['workload']}",
        times_table(record["compared"], record["programs"]),
        _answers_table(record["programs"]),
        *(f"{peer} skipped: {reason}" for peer, reason in record["skipped"].items()),
    ]
    return "\n\n".join(blocks)


def times_table(compared: str, programs: dict[str, Any]) -> str:
    """Return a table of what each program took, and of how its answer differs from ours."""
    header = [
        "program",
        "warm, median s",
        "warm, range s",
        "first round s",
        "times ours, median (range)",
        "peak MiB",
        "criterion - ours",
        compared,
    ]
    return table(header, [_times_row(name, program) for name, program in programs.items()])


def _times_row(name: str, program: dict[str, Any]) -> list[str]:
    warm, ratios, peak = program["warm_seconds"], program["ratios_to_ours"], program["peak_mib"]
    none = "not run"
    return [
        f"{name} {next(iter(program['versions'].values()))}",
        f"{median(warm):.4g}" if warm else none,
        f"{min(warm):.4g} to {max(warm):.4g}" if warm else none,
        f"{program['cold_seconds']:.4g}",
        f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if warm else none,
        _show(peak, ".0f", "unknown"),
        _show(program["criterion_difference"], ".1e", "not comparable"),
        _show(program["difference"], ".1e", "not comparable"),
    ]


def _show(value: float | None, form: str, missing: str) -> str:
    return missing if value is None else format(value, form)


def _answers_table(programs: dict[str, Any]) -> str:
    keys = [key for key in ANSWERS if programs[OURS].get(key) is not None]
    rows = [
        [name, *(_answer(program.get(key)) for key in keys)] for name, program in programs.items()
    ]
    return table(["answer", *(key.replace("_", " ") for key in keys)], rows)


def _answer(value: dict[str, list[float]] | list[float] | float | None) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key} {_answer(values)}" for key, values in value.items())
    if isinstance(value, list):
        return ", ".join(f"{x:.7g}" for x in value)
    return _show(value, ".10g", "none")


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def parse_arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [*EVERY_WORKLOAD, "all"]
    parser.add_argument("--workload", nargs="+", default=["P2"], choices=names, help="what to run")
    parser.add_argument("--fast", action="store_true", help="small data, to check the agreement")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all figures here")
    parser.add_argument("--markdown", type=Path, metavar="PATH", help="write the report here")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="warm rounds")
    parser.add_argument("--peers", help="comma-separated; '' for none; default by the workload")
    parser.add_argument(
        "--peer-python",
        default=sys.executable,
        metavar="PATH",
        help="interpreter that has the Python peers and pandas",
    )
    arguments = parser.parse_args()
    if "all" in arguments.workload:
        arguments.workload = list(EVERY_WORKLOAD)
    if arguments.peers is not None:
        arguments.peers = [peer for peer in arguments.peers.split(",") if peer]
    if arguments.repeats < 0:
        parser.error("--repeats must not be negative")
    return arguments


def run(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one workload and return its report."""
    workload, fast = EVERY_WORKLOAD[name], arguments.fast
    peers = workload.default_peers(fast) if arguments.peers is None else arguments.peers
    workers, skipped = start_workers(name, peers, fast, arguments.peer_python)
    try:
        results = measure(workers, arguments.repeats)
    finally:
        for worker in workers.values():
            worker.close()
    return report(workload, fast, results, skipped)


def disagreements(record: dict[str, Any]) -> list[str]:
    """Return the programs whose answer is too far from ours."""
    differences = {name: program["difference"] for name, program in record["programs"].items()}
    return [
        f"{name} differs by {difference:.2g} ({record['compared']})"
        for name, difference in differences.items()
        if difference is not None and not difference <= record["limit"]
    ]


def write(path: Path | None, text: str) -> None:
    """Write a file that was asked for."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def main() -> None:
    """Measure, print the tables, write the files."""
    arguments = parse_arguments()
    parts = [", ".join(f"{key}: {value}" for key, value in machine().items())]
    print(parts[0])
    records, faults = [], []
    for name in arguments.workload:
        try:
            record = run(name, arguments)
        except WorkerError as error:
            faults.append(f"{name}: {error}")
            continue
        records.append(record)
        parts.append(markdown(record))
        print(f"\n{parts[-1]}", flush=True)
        faults += [f"{name}: {fault}" for fault in disagreements(record)]
    write(arguments.json, json.dumps(records, indent=2))
    write(arguments.markdown, "\n\n".join(parts))
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
