"""The README's snippet prints what stands below it."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_snippet_prints_what_stands_below_it():
    ((snippet, printed),) = re.findall(
        r"```python\n(.*?)```\n\n```\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL
    )
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(snippet, README, "exec"), {})
    assert out.getvalue() == printed
