"""The layers of the package as a table, and every import checked against it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = "sklearn_mackay"
ROOT = Path(__file__).parents[1] / PACKAGE

LAYERS = {
    "_validation": 0,
    "_grouping": 0,
    "_solution": 0,
    "_machine": 0,
    "_tables": 0,
    "datasets": 0,
    "_roles": 1,
    "_fit_tables": 1,
    "_design": 1,
    "_variances": 1,
    "_criterion": 1,
    "_blocks": 2,
    "_fixed_part": 2,
    "_components": 3,
    "_crossproducts": 3,
    "_identification": 3,
    "_restarts": 3,
    "kernels": 3,
    "kernels.layout": 3,
    "kernels.lapack": 3,
    "kernels.loading": 3,
    "kernels.linalg": 3,
    "kernels.blocks": 3,
    "kernels.dense": 3,
    "kernels.one_factor": 3,
    "kernels.krylov": 3,
    "kernels.couplings": 3,
    "kernels.schur": 3,
    "kernels.exact": 3,
    "kernels.iterative": 3,
    "kernels.engine": 3,
    "_empirical_bayes": 3,
    "_posterior": 4,
    "_fitted": 4,
    "_export": 4,
    "_messages": 4,
    "_progress": 4,
    "_model": 4,
    "_inference": 5,
    "_bootstrap": 5,
    "_held_out": 5,
    "_comparison": 5,
    "_summary": 5,
    "_estimator": 5,
    "_displays": 6,
    "__init__": 6,
    "__main__": 7,
}

KERNELS = {module for module in LAYERS if module.split(".")[0] == "kernels"}

# What each module may import from this package; a module that is not named here imports none.
ALLOWED = {
    "_validation": {"_grouping"},
    "_tables": {"_grouping"},
    "_roles": {"_validation"},
    "_variances": {"_solution"},
    "_criterion": {"_solution"},
    "_fixed_part": {"_design"},
    "_fit_tables": {"_grouping", "_tables"},
    "_blocks": {"_design"},
    "_components": {"_blocks", "_design"},
    "_crossproducts": {"_blocks", "_design"},
    "_identification": {"_crossproducts", "_solution"},
    "_restarts": {"_crossproducts", "_solution", "_variances"},
    "kernels.layout": {"_crossproducts"},
    "kernels.lapack": {"_solution"},
    "kernels.linalg": {"kernels.lapack"},
    "kernels.blocks": {"_crossproducts", "_solution", "kernels.layout", "kernels.linalg"},
    "kernels.dense": {
        "_crossproducts",
        "_solution",
        "kernels.lapack",
        "kernels.layout",
    },
    "kernels.one_factor": {"_crossproducts", "_solution", "kernels.blocks", "kernels.linalg"},
    "kernels.exact": {
        "_crossproducts",
        "_solution",
        "kernels.blocks",
        "kernels.lapack",
        "kernels.layout",
        "kernels.linalg",
        "kernels.one_factor",
    },
    "kernels.couplings": {"_crossproducts", "kernels.layout"},
    "kernels.schur": {"kernels.couplings", "kernels.krylov", "kernels.linalg"},
    "kernels.iterative": {
        "_crossproducts",
        "_solution",
        "kernels.couplings",
        "kernels.krylov",
        "kernels.lapack",
        "kernels.layout",
        "kernels.schur",
    },
    "kernels.engine": {
        "_crossproducts",
        "_machine",
        "_solution",
        "kernels.dense",
        "kernels.layout",
        "kernels.loading",
    },
    "_empirical_bayes": {"_crossproducts", "_solution", "_variances", "_criterion"},
    "_posterior": {
        "_crossproducts",
        "_design",
        "_machine",
        "_solution",
        "_variances",
        "kernels.layout",
    },
    "_fitted": {
        "_components",
        "_crossproducts",
        "_design",
        "_fixed_part",
        "_posterior",
        "_solution",
        "_variances",
    },
    "_messages": {"_components", "_identification", "_solution"},
    "_export": {"_components", "_grouping", "_roles"},
    "_progress": {"_empirical_bayes"},
    "_model": {module for module, layer in LAYERS.items() if layer <= 3} - KERNELS | {"_fitted"},
    "_inference": {
        "_components",
        "_criterion",
        "_crossproducts",
        "_empirical_bayes",
        "_fitted",
        "_solution",
        "_tables",
    },
    "_bootstrap": {
        "_crossproducts",
        "_empirical_bayes",
        "_fitted",
        "_variances",
        "kernels.layout",
    },
    "_held_out": {"_design", "_fitted", "_tables"},
    "_comparison": {"_components", "_design"},
    "_estimator": {module for module, layer in LAYERS.items() if layer <= 4} - KERNELS
    | {"_bootstrap", "_comparison", "_held_out", "_inference", "_summary"},
    "_displays": {"_validation"},
    "__init__": {"_displays", "_estimator", "datasets"},
    "__main__": {"__init__", "_estimator", "datasets"},
}

# What a module may import inside a function only, so that importing the package and fitting small
# problems stay light.
ALLOWED_INSIDE_FUNCTIONS = {
    "_estimator": KERNELS,
    "kernels.engine": {"kernels.exact", "kernels.iterative"},
}


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


def allowed(module: str, target: str, in_function: bool) -> bool:
    edges = ALLOWED.get(module, set())
    if in_function:
        edges = edges | ALLOWED_INSIDE_FUNCTIONS.get(module, set())
    return target in edges


def test_table_lists_exactly_the_modules():
    assert set(source_files()) == set(LAYERS)


def test_table_has_no_edge_upwards_and_no_cycle():
    edges = {
        module: ALLOWED.get(module, set()) | ALLOWED_INSIDE_FUNCTIONS.get(module, set())
        for module in LAYERS
    }
    upwards = [
        (module, target)
        for module, targets in edges.items()
        for target in targets
        if LAYERS[target] > LAYERS[module]
    ]
    assert upwards == []
    TopologicalSorter(edges).prepare()


@pytest.mark.parametrize("module", source_files())
def test_module_imports_only_what_the_table_allows(module):
    path = source_files()[module]
    refused = [
        f"{path.name}:{found.line} imports {target}"
        for found in imports_of(path)
        if (target := module_named(found.name)) is not None
        and not allowed(module, target, found.in_function)
    ]
    assert refused == []


def test_only_kernels_import_tensorflow():
    importers = {
        module
        for module, path in source_files().items()
        if any(found.name.split(".")[0] in {"tensorflow", "keras"} for found in imports_of(path))
    }
    assert importers <= KERNELS


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
