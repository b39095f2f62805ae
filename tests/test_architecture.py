"""The rooms of the package and the doors between them as tables, held against every import."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = "sklearn_mackay"
ROOT = Path(__file__).parents[1] / PACKAGE
IN_FUNCTIONS = " (in functions)"  # a door that is opened when something is fitted, not on import

# Which rooms, or modules outside of rooms, each room imports.
ROOMS = {
    "_arrays": set(),
    "_machine": set(),
    "_messages": set(),
    "datasets": set(),
    "frames": {"_arrays", "_messages", "covariances"},
    "covariances": {"_arrays"},
    "design": {"_arrays", "_messages", "covariances", "frames"},
    "gram": {"_arrays", "covariances", "design", "frames"},
    "evidence": {"_arrays", "covariances", "gram"},
    "kernels": {"_arrays", "_machine", "covariances", "evidence", "gram"},
    "model": {
        "_arrays",
        "_machine",
        "_messages",
        "covariances",
        "design",
        "evidence",
        "frames",
        "gram",
    },
    "inference": {
        "_arrays",
        "_messages",
        "covariances",
        "design",
        "evidence",
        "frames",
        "gram",
        "model",
    },
    "display": {"_arrays", "_messages", "evidence", "frames"},
    "results": {"display", "inference"},
    "_regressor": {
        "_arrays",
        "_messages",
        "design",
        "display",
        "evidence",
        "frames",
        "gram",
        "inference",
        "kernels" + IN_FUNCTIONS,
        "model",
    },
    "__init__": {"_regressor", "datasets", "display", "results"},
    "__main__": {"_regressor", "datasets", "frames"},
}

# Which modules of its own room each module imports; one that is not named imports none.
MODULES = {
    "frames": {
        "making": {"grouping"},
        "options": {"roles"},
        "roles": {"tables"},
        "queries": {"grouping", "roles", "tables"},
        "scoring": {"grouping", "queries", "tables"},
        "streams": {"queries", "tables"},
        "tables": {"grouping"},
    },
    "covariances": {"structures": {"matrices"}},
    "design": {
        "blocks": {"weighted"},
        "components": {"terms"},
        "design": {"blocks", "components", "fixed", "response", "summed", "terms", "weighted"},
        "fixed": {"terms", "weighted"},
        "response": {"fixed", "weighted"},
        "summed": {"fixed", "response", "terms"},
        "terms": {"weighted"},
    },
    "gram": {
        "columns": {"crossproducts"},
        "from_frames": {"crossproducts", "pairs", "sums"},
        "from_rows": {"columns", "crossproducts", "pairs", "sums"},
        "layout": {"crossproducts"},
        "pairs": {"crossproducts"},
        "sums": {"columns", "crossproducts", "pairs"},
    },
    "evidence": {
        "boundary": {"freedom", "solution"},
        "criterion": {"solution"},
        "fixed_points": {"freedom", "solution"},
        "loop": {"boundary", "criterion", "fixed_points", "freedom", "newton", "solution"},
        "newton": {"freedom", "solution"},
        "restarts": {"freedom", "solution"},
    },
    "kernels": {
        "dense": {"lapack"},
        "engine": {"dense", "exact" + IN_FUNCTIONS, "iterative" + IN_FUNCTIONS, "loading"},
        "elimination": {"linalg"},
        "exact": {"elimination", "lapack", "linalg", "one_factor", "tensors"},
        "iterative": {"couplings", "elimination", "krylov", "lapack", "linalg", "schur"},
        "linalg": {"lapack"},
        "one_factor": {"linalg", "tensors"},
        "krylov": {"linalg"},
        "couplings": {"elimination", "linalg"},
        "schur": {"couplings", "elimination", "krylov", "linalg"},
        "tensors": {"elimination", "linalg"},
    },
    "model": {
        "estimates": {"monte_carlo", "problem"},
        "fit": {"monte_carlo", "posing", "problem"},
        "fitted": {"posterior", "problem"},
        "messages": {"estimates", "problem", "statistics"},
        "monte_carlo": {"problem"},
        "posing": {"problem"},
        "prediction": {"fitted"},
        "scans": {"messages", "posing", "statistics"},
        "scoring": {"prediction"},
        "state": {"estimates", "export", "fitted", "problem", "statistics"},
    },
    "inference": {
        "at_optimum": {"coefficients", "coordinates", "curvature", "parameters", "profiles"},
        "bootstrap": {"coefficients", "curvature", "parameters", "quantiles"},
        "coefficients": {"curvature", "quantiles"},
        "confint": {
            "at_optimum",
            "bootstrap",
            "coefficients",
            "coordinates",
            "intervals",
            "parameters",
            "profiles",
        },
        "coordinates": {"parameters"},
        "curvature": {"coordinates"},
        "intervals": {"coefficients", "coordinates", "curvature", "parameters", "quantiles"},
        "profiles": {"coordinates", "curvature", "intervals", "parameters", "quantiles"},
    },
    "display": {
        "unpooled": {"reading"},
        "convergence": {"axes", "reading"},
        "effects": {"axes", "reading", "unpooled"},
        "profile": {"axes", "reading"},
        "summary": {"tables"},
    },
}

PUBLIC_MODULES = ("datasets", "results")  # beside the package itself


class Import(NamedTuple):
    """One imported name, absolute, and whether the statement stands in a function."""

    name: str
    in_function: bool
    line: int


@cache
def source_files() -> dict[str, Path]:
    """Return the package's modules by dotted name, ``kernels`` for ``kernels/__init__.py``."""
    modules = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if len(parts) > 1 and parts[-1] == "__init__":
            parts = parts[:-1]
        modules[".".join(parts)] = path
    return modules


def imports_of(path: Path) -> list[Import]:
    return list(_walk(ast.parse(path.read_text()), path, in_function=False))


def _walk(node: ast.AST, path: Path, in_function: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        for name in _imported_names(child, path):
            yield Import(name, in_function, child.lineno)
        is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _walk(child, path, in_function or is_function)


def _imported_names(node: ast.AST, path: Path) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = _absolute_base(node, path)
        return [f"{base}.{alias.name}" for alias in node.names]
    return []


def _absolute_base(node: ast.ImportFrom, path: Path) -> str:
    if not node.level:
        return node.module or ""
    package = (PACKAGE, *path.relative_to(ROOT).parts[:-1])
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, *([node.module] if node.module else [])])


def module_named(name: str) -> str | None:
    """Return the module of this package that ``name`` is or lives in, None for another package."""
    if name.split(".")[0] != PACKAGE:
        return None
    parts = name.split(".")[1:]
    while parts and ".".join(parts) not in source_files():
        parts.pop()
    return ".".join(parts) or "__init__"


class Door(NamedTuple):
    """An import from one room or module into another."""

    origin: str
    target: str


def room_of(module: str) -> str:
    return module.split(".")[0]


def name_in_room(module: str) -> str:
    return module.split(".")[-1]


@cache
def doors() -> dict[Door, list[str]]:
    """Return each import between modules of the package, and the lines where it stands."""
    found: dict[Door, list[str]] = {}
    for module, path in source_files().items():
        for one in imports_of(path):
            target = module_named(one.name)
            if target is not None and target != module:
                door = Door(module, target + IN_FUNCTIONS * one.in_function)
                found.setdefault(door, []).append(f"{path.relative_to(ROOT)}:{one.line}")
    return found


def between_rooms() -> dict[Door, list[str]]:
    found: dict[Door, list[str]] = {}
    for (origin, target), lines in doors().items():
        suffix = IN_FUNCTIONS * target.endswith(IN_FUNCTIONS)
        rooms = room_of(origin), room_of(target.removesuffix(IN_FUNCTIONS))
        if rooms[0] != rooms[1]:
            found.setdefault(Door(rooms[0], rooms[1] + suffix), []).extend(lines)
    return found


def within(room: str) -> dict[Door, list[str]]:
    return {
        Door(name_in_room(origin), name_in_room(target)): lines
        for (origin, target), lines in doors().items()
        if room_of(origin) == room_of(target.removesuffix(IN_FUNCTIONS)) == room
    }


def listed(table: Mapping[str, set[str]]) -> set[Door]:
    return {Door(origin, target) for origin, targets in table.items() for target in targets}


def assert_same_doors(used: Mapping[Door, list[str]], table: Mapping[str, set[str]]) -> None:
    allowed = listed(table)
    assert {door: lines for door, lines in used.items() if door not in allowed} == {}
    assert allowed - set(used) == set(), "no import uses these: take them off the table"


def test_every_module_has_a_room():
    assert {room_of(module) for module in source_files()} == set(ROOMS)
    assert {room_of(module) for module in source_files() if "." in module} == set(MODULES)


def test_rooms_import_what_the_table_says():
    assert_same_doors(between_rooms(), ROOMS)


@pytest.mark.parametrize("room", MODULES)
def test_modules_of_a_room_import_what_the_table_says(room):
    assert_same_doors(within(room), MODULES[room])


@pytest.mark.parametrize("table", [ROOMS, *MODULES.values()], ids=["rooms", *MODULES])
def test_no_circle(table):
    edges = {
        origin: {target.removesuffix(IN_FUNCTIONS) for target in targets}
        for origin, targets in table.items()
    }
    TopologicalSorter(edges).prepare()


def test_a_door_is_seen_wherever_it_is():
    source = "import numpy\nfrom .a import b\ndef f():\n    from ..c.d import e\n"
    path = ROOT / "room" / "module.py"
    found = list(_walk(ast.parse(source), path, in_function=False))
    assert [(one.name, one.in_function) for one in found] == [
        ("numpy", False),
        (f"{PACKAGE}.room.a.b", False),
        (f"{PACKAGE}.c.d.e", True),
    ]


def test_only_kernels_import_tensorflow():
    importers = {
        room_of(module)
        for module, path in source_files().items()
        if any(one.name.split(".")[0] in {"tensorflow", "keras"} for one in imports_of(path))
    }
    assert importers == {"kernels"}


def test_the_documentation_names_public_modules_only():
    pages = [ROOT.parent / "README.md"] + [
        page
        for pattern in ("*.rst", "*.md", "*.py")
        for folder in ("docs", "examples")
        for page in (ROOT.parent / folder).rglob(pattern)
        if not {"_build", "gallery", "generated"} & set(page.parts)
    ]
    private = sorted(set(ROOMS) - set(PUBLIC_MODULES))
    path = re.compile(rf"{PACKAGE}\.({'|'.join(private)}|_(?!_)\w+)\b")
    named = [(page.name, found) for page in pages for found in path.findall(page.read_text())]
    assert named == []


@pytest.mark.slow
@pytest.mark.parametrize("module", [PACKAGE, f"{PACKAGE}.datasets"])
def test_import_leaves_tensorflow_out(module):
    code = f"import sys, {module}; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_fitting_a_small_problem_leaves_tensorflow_out():
    code = (
        "import sys; from sklearn_mackay import MacKayMixedRegressor; "
        "from sklearn_mackay.datasets import load_sleepstudy; "
        "X, y = load_sleepstudy(return_X_y=True); "
        "MacKayMixedRegressor(groups=[1], random_slopes={1: [0]}).fit(X, y); "
        "sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_module_of_tests_imports_another():
    importers = {
        path.name: imported
        for path in (ROOT.parent / "tests").rglob("*.py")
        for one in imports_of(path)
        if (imported := one.name.split(".")[0]).startswith("test_")
    }
    assert importers == {}
