"""Docstrings of public objects are complete: sections, and the names that they document."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import FunctionType
from typing import Any, get_args, get_type_hints

import pytest

import sklearn_mackay
from sklearn_mackay import MacKayMixedRegressor, datasets

REFERENCE = Path(__file__).parents[1] / "docs" / "api"


def members(cls: type) -> dict[str, Any]:
    """Return the functions of the public methods and properties that a class itself defines."""
    found = {
        f"{cls.__name__}.{name}": getattr(member, "fget", getattr(member, "__func__", member))
        for name, member in vars(cls).items()
        if not name.startswith("_")
    }
    return {name: member for name, member in found.items() if isinstance(member, FunctionType)}


def records_of(hint: Any) -> Iterator[type]:
    """Yield the dataclasses and dicts of this package in a type, and in those of their fields."""
    inner = list(get_args(hint))
    is_own_dict = inspect.isclass(hint) and issubclass(hint, dict) and hint is not dict
    if is_dataclass(hint) or is_own_dict:
        yield hint
    if is_dataclass(hint):
        inner += get_type_hints(hint).values()
    for one in inner:
        yield from records_of(one)


def public_objects() -> dict[str, Any]:
    exported = [getattr(sklearn_mackay, name) for name in sklearn_mackay.__all__]
    classes = [one for one in exported if inspect.isclass(one)]
    for method in [method for cls in classes for method in members(cls).values()]:
        classes += records_of(get_type_hints(method).get("return"))
    found = {
        name: one
        for name, one in vars(datasets).items()
        if not name.startswith("_") and getattr(one, "__module__", "") == datasets.__name__
    }
    for cls in classes:
        found |= {cls.__name__: cls, **members(cls)}
    return found


def sections(docstring: str) -> dict[str, str]:
    """Split a docstring at its underlined titles; what stands before them is "Summary"."""
    parts = re.split(r"^(\w.*)\n-{3,}\n", inspect.cleandoc(docstring), flags=re.MULTILINE)
    return {"Summary": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def names(section: str) -> set[str]:
    """Return what a section documents: the names in its lines that are not indented."""
    lines = re.findall(r"^\S.*$", section, flags=re.MULTILINE)
    return {name.strip("* ") for line in lines for name in line.split(" : ")[0].split(",")}


def raised(function: Any) -> set[str]:
    """Return the exceptions that a function raises in its own body."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    raises = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc]
    return {ast.unparse(error).split("(")[0] for error in raises}


def faults(one: Any) -> list[str]:
    """Say what the docstring of a class or function lacks."""
    found = sections(one.__doc__ or "")
    title, expected = "Parameters", set(inspect.signature(one).parameters) - {"self", "cls"}
    if is_dataclass(one):
        title, expected = "Attributes", {field.name for field in fields(one)}
    documented = names(found.get(title, ""))
    is_function = not inspect.isclass(one)
    returns = is_function and get_type_hints(one).get("return") is not type(None)
    unsaid = raised(one) - names(found.get("Raises", "")) if is_function else set()
    return [
        *["no summary line"] * (not re.match(r"\S[^\n]*[.](\n|$)", found["Summary"])),
        *["no example"] * (">>>" not in found.get("Examples", "")),
        *[f"{title}: {name} is missing" for name in sorted(expected - documented)],
        *[f"{title}: there is no {name}" for name in sorted(documented - expected)],
        *["no Returns"] * (returns and "Returns" not in found),
        *[f"Raises: {name} is missing" for name in sorted(unsaid)],
    ]


@pytest.mark.parametrize("name", public_objects())
def test_docstring_is_complete(name):
    missing = faults(public_objects()[name])
    assert not missing, f"{name}: {'; '.join(missing)}"


def test_records_and_loaders_are_among_the_public_objects():
    expected = {"MacKayMixedRegressor.fit", "HeldOut", "FixedRow", "Intervals", "load_sleepstudy"}
    assert expected <= set(public_objects())


def test_every_public_name_has_a_line_in_the_reference():
    pages = "\n".join(page.read_text() for page in REFERENCE.glob("*.rst"))
    lines = re.findall(r"^   ~?([\w.]+)$", pages, flags=re.MULTILINE)
    displays = {name for name in sklearn_mackay.__all__ if name.endswith("Display")}
    loaders = {name for name in public_objects() if name in vars(datasets)}
    expected = displays | loaders | set(members(MacKayMixedRegressor))
    assert sorted(expected - set(lines)) == []
    assert len(lines) == len(set(lines))


def test_each_fault_is_found():
    def incomplete(a: int, b: int) -> int:
        """Add

        Parameters
        ----------
        a, c : int
            Numbers.
        """
        if a < b:
            raise ValueError("a")
        return a + b

    assert faults(incomplete) == [
        "no summary line",
        "no example",
        "Parameters: b is missing",
        "Parameters: there is no c",
        "no Returns",
        "Raises: ValueError is missing",
    ]
