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
    "frames.tables": 0,
    "frames.grouping": 0,
    "evidence.solution": 0,
    "_machine": 0,
    "frames.making": 0,
    "datasets": 0,
    "frames.roles": 1,
    "display.fit_tables": 1,
    "design.terms": 1,
    "evidence.fixed_points": 1,
    "evidence.criterion": 1,
    "design.blocks": 2,
    "design.fixed": 2,
    "design.components": 3,
    "gram.crossproducts": 3,
    "evidence.identification": 3,
    "evidence.restarts": 3,
    "kernels": 3,
    "frames": 0,
    "design": 1,
    "gram": 3,
    "evidence": 0,
    "model": 4,
    "inference": 5,
    "display": 5,
    "gram.layout": 3,
    "kernels.lapack": 3,
    "kernels.loading": 3,
    "kernels.linalg": 3,
    "kernels.tensors": 3,
    "kernels.dense": 3,
    "kernels.one_factor": 3,
    "kernels.krylov": 3,
    "kernels.couplings": 3,
    "kernels.schur": 3,
    "kernels.exact": 3,
    "kernels.iterative": 3,
    "kernels.engine": 3,
    "evidence.loop": 3,
    "model.posterior": 4,
    "model.fitted": 4,
    "model.export": 4,
    "model.messages": 4,
    "display.progress": 4,
    "model.problem": 4,
    "inference.coordinates": 5,
    "inference.bootstrap": 5,
    "inference.held_out": 5,
    "inference.comparison": 5,
    "display.summary": 5,
    "_regressor": 5,
    "display.effects": 6,
    "__init__": 6,
    "__main__": 7,
}

KERNELS = {module for module in LAYERS if module.split(".")[0] == "kernels"}

# What each module may import from this package; a module that is not named here imports none.
ALLOWED = {
    "frames.tables": {"frames.grouping"},
    "frames.making": {"frames.grouping"},
    "frames.roles": {"frames.tables"},
    "evidence.fixed_points": {"evidence.solution"},
    "evidence.criterion": {"evidence.solution"},
    "design.fixed": {"design.terms"},
    "display.fit_tables": {"frames.grouping", "frames.making"},
    "design.blocks": {"design.terms"},
    "design.components": {"design.blocks", "design.terms"},
    "gram.crossproducts": {"design.blocks", "design.terms"},
    "evidence.identification": {"gram.crossproducts", "evidence.solution"},
    "evidence.restarts": {"gram.crossproducts", "evidence.solution", "evidence.fixed_points"},
    "gram.layout": {"gram.crossproducts"},
    "kernels.lapack": {"evidence.solution"},
    "kernels.linalg": {"kernels.lapack"},
    "kernels.tensors": {"gram.crossproducts", "evidence.solution", "gram.layout", "kernels.linalg"},
    "kernels.dense": {
        "gram.crossproducts",
        "evidence.solution",
        "kernels.lapack",
        "gram.layout",
    },
    "kernels.one_factor": {
        "gram.crossproducts",
        "evidence.solution",
        "kernels.tensors",
        "kernels.linalg",
    },
    "kernels.exact": {
        "gram.crossproducts",
        "evidence.solution",
        "kernels.tensors",
        "kernels.lapack",
        "gram.layout",
        "kernels.linalg",
        "kernels.one_factor",
    },
    "kernels.couplings": {"gram.crossproducts", "gram.layout"},
    "kernels.schur": {"kernels.couplings", "kernels.krylov", "kernels.linalg"},
    "kernels.iterative": {
        "gram.crossproducts",
        "evidence.solution",
        "kernels.couplings",
        "kernels.krylov",
        "kernels.lapack",
        "gram.layout",
        "kernels.schur",
    },
    "kernels.engine": {
        "gram.crossproducts",
        "_machine",
        "evidence.solution",
        "kernels.dense",
        "gram.layout",
        "kernels.loading",
    },
    "evidence.loop": {
        "gram.crossproducts",
        "evidence.solution",
        "evidence.fixed_points",
        "evidence.criterion",
    },
    "model.posterior": {
        "gram.crossproducts",
        "design.terms",
        "_machine",
        "evidence.solution",
        "evidence.fixed_points",
        "gram.layout",
    },
    "model.fitted": {
        "design.components",
        "gram.crossproducts",
        "design.terms",
        "design.fixed",
        "model.posterior",
        "evidence.solution",
        "evidence.fixed_points",
    },
    "model.messages": {"design.components", "evidence.identification", "evidence.solution"},
    "model.export": {"design.components", "frames.grouping", "frames.roles"},
    "display.progress": {"evidence.loop"},
    "model.problem": {module for module, layer in LAYERS.items() if layer <= 3} - KERNELS
    | {"model.fitted"},
    "inference.coordinates": {
        "design.components",
        "evidence.criterion",
        "gram.crossproducts",
        "evidence.loop",
        "model.fitted",
        "evidence.solution",
        "frames.making",
    },
    "inference.bootstrap": {
        "gram.crossproducts",
        "evidence.loop",
        "model.fitted",
        "evidence.fixed_points",
        "gram.layout",
    },
    "inference.held_out": {"design.terms", "model.fitted", "frames.making"},
    "inference.comparison": {"design.components", "design.terms"},
    "_regressor": {module for module, layer in LAYERS.items() if layer <= 4} - KERNELS
    | {
        "inference.bootstrap",
        "inference.comparison",
        "inference.held_out",
        "inference.coordinates",
        "display.summary",
    },
    "display.effects": {"frames.tables"},
    "__init__": {"display.effects", "_regressor", "datasets"},
    "__main__": {"__init__", "_regressor", "datasets"},
}

# What a module may import inside a function only, so that importing the package and fitting small
# problems stay light.
ALLOWED_INSIDE_FUNCTIONS = {
    "_regressor": KERNELS,
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
