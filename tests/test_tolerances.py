"""A tolerance has a name, and its name a reason."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TOLERANCES = {"rtol", "atol", "rel", "abs"}
SMALL = 0.01  # larger factors of a named tolerance are counts or units
TESTS = Path(__file__).parent


def bare_tolerances(source: str) -> list[int]:
    """Lines where a number says how far two values may be apart."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    keywords = (k for call in calls for k in call.keywords if k.arg in TOLERANCES)
    return [number.lineno for keyword in keywords for number in _tolerances(keyword.value)]


def _tolerances(value: ast.expr) -> Iterator[ast.Constant]:
    """Any number but zero that stands alone, and small ones within an expression."""
    for node in ast.walk(value):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, int | float)
            and node.value != 0
            and (node is value or abs(node.value) < SMALL)
        ):
            yield node


@pytest.mark.parametrize(
    "source",
    ["assert_allclose(a, b, rtol=1e-7)", "x == approx(y, abs=0.1)", "close(a, b, atol=1e-9 * big)"],
)
def test_bare_tolerances_are_found(source):
    assert bare_tolerances(source) == [1]


@pytest.mark.parametrize(
    "source",
    ["assert_allclose(a, b, rtol=0, atol=ROUNDING)", "f(a, rtol=3 * ROUNDING)", "abs(1.0)"],
)
def test_named_tolerances_pass(source):
    assert bare_tolerances(source) == []


@pytest.mark.parametrize(
    "path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS))
)
def test_no_tolerance_is_bare(path):
    assert bare_tolerances(path.read_text()) == []
