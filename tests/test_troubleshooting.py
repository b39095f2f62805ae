"""Every message of the package has an entry on the page "Troubleshooting", and no other has one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sklearn_mackay._messages import Message

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "user_guide" / "troubleshooting.rst"

VALUE = "..."  # what the page writes where a message has a value


def text(node: ast.AST, strings: dict[str, str]) -> str:
    """The string that an expression makes; `strings` are those that the module has names for."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text(part, strings) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        value = text(node.value, strings)
        return repr(value) if node.conversion == ord("r") and value != VALUE else value
    if isinstance(node, ast.Call):
        return text(node.func, strings)
    return strings.get(getattr(node, "attr", getattr(node, "id", "")), VALUE)


def named_strings(tree: ast.Module) -> dict[str, str]:
    """Constants, local variables, and functions that do nothing but return a string."""
    strings = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name, value = node.targets[0].id, node.value
        elif isinstance(node, ast.FunctionDef) and isinstance(node.body[0], ast.Return):
            name, value = node.name, node.body[0].value
        else:
            continue
        if isinstance(value, (ast.Constant, ast.JoinedStr)):
            strings[name] = text(value, {})
    return strings


def texts(source: str) -> Iterator[str]:
    """What a module raises, and what it has faces warn of."""
    tree = ast.parse(source)
    strings = named_strings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield text(node.exc.args[0], strings)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == Message.__name__:
            yield text(node.args[0], strings)


def messages(source: str) -> list[str]:
    """Whole sentences: what has no full stop is said within another message."""
    return [said for said in texts(source) if re.search(r"[^.]\.$|\.{4}$|\. \.{3}$", said)]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise ValueError(f'`{name}` is' f' {value!r}.')", "`...` is ...."),
        ("said.append(Message(f'{sum(a):.1f} {b[0]} left.'))", "... ... left."),
        ("yield Message('It is odd.', UserWarning)", "It is odd."),
        ("start = f'{name}: '\nraise KeyError(f'{start}gone.')", "...: gone."),
        ("NAME = 'x'\nraise KeyError(f'{NAME!r} is taken.')", "'x' is taken."),
        ("def advice(a): return f'{a} fails.'\nraise KeyError(advice(1))", "... fails."),
    ],
)
def test_a_message_is_found_however_it_is_written(source, message):
    assert messages(source) == [message]


def test_every_message_has_one_entry_and_every_entry_a_message():
    files = (ROOT / "sklearn_mackay").rglob("*.py")
    emitted = {message for file in files for message in messages(file.read_text())}
    # An entry is a term of a definition list: a line of code, and an indented line after it.
    entries = re.findall(r"^``(.+)``\n +\S", PAGE.read_text(), flags=re.MULTILINE)
    assert sorted(emitted - set(entries)) == [], "not on the page"
    assert sorted(set(entries) - emitted) == [], "on the page, but in no module"
    assert len(entries) == len(set(entries))
