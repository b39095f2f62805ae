"""The theory page and the source name the same equations."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TAG = re.compile(r"\\tag\{(\d+)\}")
CITATION = re.compile(
    r"equations? \((\d+)\)(?: and \((\d+)\))?\s+of\s+docs/theory\.md", re.IGNORECASE
)


def test_equations_are_numbered_in_order_and_each_is_cited_by_the_code_that_computes_it():
    equations = [int(n) for n in TAG.findall((ROOT / "docs" / "theory.md").read_text())]
    sources = sorted((ROOT / "sklearn_mackay").rglob("*.py"))
    cited = {
        int(n)
        for source in sources
        for numbers in CITATION.findall(source.read_text())
        for n in numbers
        if n
    }
    assert equations == list(range(1, len(equations) + 1))
    assert cited == set(equations)
