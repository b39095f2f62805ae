"""A fit as text and as HTML."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import fields, replace
from html.parser import HTMLParser
from itertools import product

import pytest

from sklearn_mackay.display.summary import BlockRow, FixedRow, RandomRow, Summary

SIGNIFICANT = 5e-4  # relative; half a unit of the fourth of four significant digits

# lme4 and lmerTest, Reaction ~ Days + (Days | Subject).
SLEEPSTUDY = Summary(
    method="reml",
    criterion="REML criterion",
    deviance=1743.628,
    aic=1755.628,
    bic=1774.786,
    n_rows=180.0,
    levels={"Subject": 18},
    random=(
        RandomRow("Subject", "(Intercept)", 612.0899),
        RandomRow("Subject", "Days", 35.07166, (0.0656,)),
    ),
    residual_variance=654.941,
    blocks=(),
    fixed=(
        FixedRow("(Intercept)", 251.4051, 6.8246, 17.0, 36.838, 1.2e-17),
        FixedRow("Days", 10.46729, 1.5458, 17.0, 6.771, 3.26e-06),
    ),
    effective_dof={"Subject": 29.4123},
    r2_marginal=0.2786,
    r2_conditional=0.7992,
    icc={"Subject": 0.7215},
    solver="exact",
    kernel="lapack",
    n_iter=6,
    converged=True,
    singular=False,
)

SLEEPSTUDY_TEXT = """\
Linear mixed model fit by REML
Solver: exact (LAPACK), 6 iterations
REML criterion: 1743.6   AIC: 1755.6   BIC: 1774.8

Random effects:
 Groups   Name        Variance Std.Dev. Corr
 Subject  (Intercept) 612.09   24.740
          Days         35.07    5.922   0.07
 Residual             654.94   25.592
Number of obs: 180, groups: Subject, 18
Effective degrees of freedom: Subject 29.41

Fixed effects:
            Estimate Std. Error   df t value Pr(>|t|)
(Intercept)  251.405      6.825 17.0  36.838   <2e-16
Days          10.467      1.546 17.0   6.771 3.26e-06

R2: marginal 0.279; conditional 0.799
ICC: Subject 0.722"""

LONG = "the mean of the last fifty measurements, in litres"
FIXED_TITLES = ("Coefficient", "Estimate", "Std. Error", "df", "t value", "Pr(&gt;|t|)")
HOSTILE = "<script>alert('x')</script>&\"\n\x1b[31m"


def table(text: str, title: str) -> list[str]:
    """Lines of the part of a text under a title."""
    return text.split(f"{title}:\n")[1].split("\n\n")[0].splitlines()


def squeezed(text: str) -> str:
    """The text without its line breaks."""
    return re.sub(r"\s+", " ", text)


def variances(*values: float, residual: float) -> Summary:
    """A summary with one factor for each variance."""
    rows = tuple(RandomRow(f"g{i}", "(Intercept)", v) for i, v in enumerate(values))
    return replace(SLEEPSTUDY, random=rows, residual_variance=residual)


def coefficients(*rows: tuple[float, ...]) -> Summary:
    fixed = tuple(FixedRow(f"x{i}", *row) for i, row in enumerate(rows))
    return replace(SLEEPSTUDY, fixed=fixed)


def many(n: int) -> Summary:
    return coefficients(*((float(i), 1.0, 10.0, float(i), 0.5) for i in range(n)))


class Page(HTMLParser):
    """What a browser finds: elements, attributes and the text of cells."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.open: list[str] = []
        self.attributes: set[str] = set()
        self.scopes: Counter[str] = Counter()
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.open.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.scopes.update(value for name, value in attrs if name == "scope")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1], data.strip()))

    def cells(self) -> list[str]:
        return [text for tag, text in self.texts if tag in ("td", "th")]


def page(summary: Summary) -> Page:
    return Page(summary._repr_html_())


def test_sleepstudy_as_lme4_prints_it():
    assert str(SLEEPSTUDY) == SLEEPSTUDY_TEXT


def test_what_is_printed_is_the_text():
    assert repr(SLEEPSTUDY) == f"{SLEEPSTUDY}" == SLEEPSTUDY.to_text() == SLEEPSTUDY_TEXT


@pytest.mark.parametrize(
    ("method", "title"),
    [
        ("reml", "fit by REML"),
        ("ml", "fit by maximum likelihood"),
        ("mackay", "MacKay"),
        ("quick", "Hinton"),
    ],
)
def test_title_names_the_method(method, title):
    summary = replace(SLEEPSTUDY, method=method, criterion="-2 log-likelihood")
    first, _, third, *_ = str(summary).splitlines()
    assert first.startswith("Linear mixed model")
    assert title in first
    assert third.startswith("-2 log-likelihood: 1743.6 ")
    assert ("caption", first) in page(summary).texts


def test_every_field_is_shown():
    """A change of any one changes both texts."""
    other = dict(
        method="ml",
        criterion="-2 log-likelihood",
        deviance=1.0,
        aic=2.0,
        bic=3.0,
        n_rows=4.5,
        levels={"Subject": 5},
        random=SLEEPSTUDY.random[:1],
        residual_variance=6.0,
        blocks=(BlockRow("genes", 20, 0.25, 7.0),),
        fixed=SLEEPSTUDY.fixed[1:],
        effective_dof={"Subject": 8.0},
        r2_marginal=0.1,
        r2_conditional=0.2,
        icc={"Subject": 0.3},
        solver="iterative",
        kernel="tensorflow",
        n_iter=9,
        converged=False,
        singular=True,
    )
    assert set(other) == {field.name for field in fields(Summary)}
    for name, value in other.items():
        changed = replace(SLEEPSTUDY, **{name: value})
        assert changed.to_text() != SLEEPSTUDY.to_text(), name
        assert changed.to_html() != SLEEPSTUDY.to_html(), name


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ((0.7169, 3.7311, 0.3024), ["0.7169", "3.7311", "0.3024"]),
        ((1378.2, 0.0, 960.5), ["1378.2", "0.0", "960.5"]),
        ((1e-8, 1e-8), ["1.000e-08", "1.000e-08"]),
        ((1e8, 1e8), ["100000000", "100000000"]),
        ((1e-8, 1e8), ["1.000e-08", "1.000e+08"]),
        ((9.99996, 1.0), ["10.000", "1.000"]),
        ((12345.678, 0.01234), ["12345.67800", "0.01234"]),
        ((0.0, 0.0), ["0", "0"]),
        ((math.inf, 2.0), ["Inf", "2.000"]),
        ((0.0, 1.234e-6), ["0.000e+00", "1.234e-06"]),
    ],
)
def test_numbers_as_r_formats_them(values, shown):
    *factors, residual = values
    lines = table(str(variances(*factors, residual=residual)), "Random effects")
    cells = [line.split()[-2] for line in lines[1 : 1 + len(values)]]
    assert cells == shown


MAGNITUDES = [10.0**k * 1.2345 for k in range(-8, 9)]


@pytest.mark.parametrize(("a", "b"), list(product(MAGNITUDES[::2], repeat=2)))
def test_columns_keep_digits_and_decimal_points_aligned(a, b):
    lines = table(str(variances(a, b, residual=1.0)), "Random effects")[1:4]
    shown = [float(line.split()[-2]) for line in lines]
    assert shown == pytest.approx([a, b, 1.0], rel=SIGNIFICANT)
    points = {match.start() for line in lines for match in re.finditer(r"\.", line)}
    assert len(points) <= 2  # one for variances, one for standard deviations
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize("a", MAGNITUDES)
def test_estimates_are_shown_to_the_precision_of_their_errors(a):
    lines = table(str(coefficients((-a, a / 100), (0.0, a / 50))), "Fixed effects")
    first, second = (line.split() for line in lines[1:])
    assert [float(cell) for cell in first[1:]] == pytest.approx([-a, a / 100], rel=SIGNIFICANT)
    assert float(second[1]) == 0.0
    assert len({len(line) for line in lines}) == 1


def test_an_estimate_below_its_error_is_zero_without_a_sign():
    lines = table(str(coefficients((-1e-7, 2.0), (3.0, 2.0))), "Fixed effects")
    assert lines[1].split() == ["x0", "0.000", "2.000"]


@pytest.mark.parametrize(
    ("p", "shown"),
    [
        (0.0, "<2e-16"),
        (2.2e-16, "<2e-16"),
        (2.3e-16, "2.30e-16"),
        (3.26e-06, "3.26e-06"),
        (1e-4, "0.0001"),
        (0.0421, "0.0421"),
        (1.0, "1.0000"),
    ],
)
def test_p_values(p, shown):
    assert table(str(coefficients((1.0, 1.0, 9.0, 1.0, p))), "Fixed effects")[1].endswith(
        f" {shown}"
    )
    assert shown in page(coefficients((1.0, 1.0, 9.0, 1.0, p))).cells()


def test_columns_that_are_unknown_throughout_are_left_out():
    text = str(coefficients((1.0, 0.5), (2.0, 0.25)))
    assert table(text, "Fixed effects")[0].split() == ["Estimate", "Std.", "Error"]
    text = str(coefficients((1.0, 0.5, math.nan, 2.0), (2.0, 0.25, math.nan, 8.0)))
    assert table(text, "Fixed effects")[0].split()[3:] == ["t", "value"]
    assert "Pr(&gt;|t|)" not in coefficients((1.0, 0.5)).to_html()


def test_unknown_cells_are_empty():
    summary = coefficients((1.5, 0.5, math.inf, 3.0, 0.0027), (0.0, math.nan))
    assert table(str(summary), "Fixed effects") == [
        "   Estimate Std. Error  df t value Pr(>|t|)",
        "x0   1.5000     0.5000 Inf   3.000   0.0027",
        "x1   0.0000",
    ]
    assert "nan" not in summary.to_text().lower() + summary.to_html().lower()


def test_unknown_shares_and_criteria_are_left_out():
    text = str(
        replace(
            SLEEPSTUDY,
            deviance=-math.inf,
            aic=math.nan,
            r2_marginal=math.nan,
            r2_conditional=math.nan,
            icc={},
            effective_dof={},
        )
    )
    assert "REML criterion: -Inf   BIC: 1774.8\n" in text
    assert not re.search("R2|ICC|freedom|AIC|nan", text)


def test_correlations_form_a_triangle():
    rows = (
        RandomRow("Subject", "(Intercept)", 800.0),
        RandomRow("Subject", "Days", 200.0, (-0.41,)),
        RandomRow("Subject", "Days2", 2.0, (0.46, -0.911)),
        RandomRow("item", "(Intercept)", 0.5),
        RandomRow("item", "Days", 1.25, (-0.001,)),
    )
    summary = replace(SLEEPSTUDY, random=rows, levels={"Subject": 18, "item": 7})
    assert table(str(summary), "Random effects")[:7] == [
        " Groups   Name        Variance Std.Dev. Corr",
        " Subject  (Intercept) 800.0000 28.2843",
        "          Days        200.0000 14.1421  -0.41",
        "          Days2         2.0000  1.4142   0.46 -0.91",
        " item     (Intercept)   0.5000  0.7071",
        "          Days          1.2500  1.1180   0.00",
        " Residual             654.9410 25.5918",
    ]
    assert 'colspan="2">Corr</th>' in summary.to_html()


def test_without_slopes_there_is_no_column_of_correlations():
    assert "Corr" not in str(variances(1.0, residual=2.0))


def test_a_correlation_beside_a_variance_of_zero_is_empty():
    rows = (SLEEPSTUDY.random[0], RandomRow("Subject", "Days", 0.0, (math.nan,)))
    text = str(replace(SLEEPSTUDY, random=rows))
    assert table(text, "Random effects")[2].split() == ["Days", "0.0", "0.00"]


def test_blocks_have_a_table():
    blocks = (BlockRow("genes", 20000, 1.234e-2, 53074.6), BlockRow("clinical", 12, 0.0, math.inf))
    summary = replace(SLEEPSTUDY, blocks=blocks, effective_dof={"genes": 41.237, "clinical": 0.0})
    assert table(str(summary), "Feature blocks") == [
        " Block    Columns Variance Std.Dev. Alpha",
        " genes    20000   0.01234  0.1111   53075",
        " clinical    12   0.00000  0.0000     Inf",
    ]
    assert "freedom: genes 41.24; clinical 0.00\n" in str(summary)
    assert {"genes", "20000", "53075", "Inf"} <= set(page(summary).cells())


def test_without_random_and_fixed_effects():
    summary = replace(SLEEPSTUDY, levels={}, random=(), fixed=(), effective_dof={}, icc={})
    assert table(str(summary), "Random effects") == [
        " Groups   Name Variance Std.Dev.",
        " Residual      654.9    25.59",
        "Number of obs: 180",
    ]
    assert "Fixed effects" not in str(summary) + summary.to_html()


@pytest.mark.parametrize(("n_rows", "shown"), [(1e8, "100000000"), (180.5, "180.5")])
def test_number_of_rows(n_rows, shown):
    assert f"Number of obs: {shown}, groups" in str(replace(SLEEPSTUDY, n_rows=n_rows))


def test_notes_only_where_something_is_wrong():
    assert "Note" not in SLEEPSTUDY.to_html()
    text = str(replace(SLEEPSTUDY, converged=False, n_iter=200))
    assert squeezed(text).endswith(
        "Not converged after 200 iterations: the estimates may be far from the optimum."
    )
    assert "Note: Not converged" in re.sub(
        "<.*?>", "", replace(SLEEPSTUDY, converged=False).to_html()
    )


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        (
            dict(
                random=(RandomRow("plate", "(Intercept)", 0.0), RandomRow("a", "x", 2.0)),
                blocks=(BlockRow("genes", 3, 0.0, math.inf),),
            ),
            "Singular fit: the variance of plate (Intercept), genes is zero.",
        ),
        (
            dict(
                random=(RandomRow("g", "(Intercept)", 1e8), RandomRow("g", "x", 1e-8, (-1.0,))),
            ),
            "Singular fit: a correlation of g is 1 or -1.",
        ),
        (dict(residual_variance=0.0), "Singular fit: the variance of the residual is zero."),
        ({}, "Singular fit: a combination of a factor's coefficients has variance zero."),
    ],
    ids=["variances", "correlation", "residual", "combination"],
)
def test_a_singular_fit_says_what_is_zero(changes, note):
    summary = replace(SLEEPSTUDY, **changes, singular=True)
    assert squeezed(str(summary)).endswith(note)
    assert ("p", note) in page(summary).texts


def test_long_and_wide_names_keep_the_alignment():
    """A wide character takes two columns of a terminal, an accent none."""
    padded = [LONG, "日本語" + 44 * " ", "e\u0301" + 49 * " "]
    names = [name.strip() for name in padded]
    summary = replace(
        SLEEPSTUDY,
        random=tuple(RandomRow(name, name, 1.5) for name in names),
        residual_variance=12.5,
        fixed=tuple(FixedRow(name, 1.5, 0.5) for name in names),
    )
    assert table(str(summary), "Random effects")[:5] == [
        f" {'Groups':50} {'Name':50} Variance Std.Dev.",
        *(f" {name} {name}  1.500   1.225" for name in padded),
        f" {'Residual':50} {'':50} 12.500   3.536",
    ]
    assert table(str(summary), "Fixed effects") == [
        f"{'':50} Estimate Std. Error",
        *(f"{name}   1.5000     0.5000" for name in padded),
    ]


def test_lists_are_broken_between_items():
    levels = {f"{LONG} {i}": i for i in range(60)}
    dof = {f"factor {i}": 1.0 for i in range(60)}
    lines = str(replace(SLEEPSTUDY, levels=levels, effective_dof=dof)).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("Number of obs"))
    assert lines[start : start + 2] == [
        f"Number of obs: 180, groups: {LONG} 0, 0;",
        f"  {LONG} 1, 1;",
    ]
    assert lines[start + 59] == f"  {LONG} 59, 59"
    assert max(map(len, lines[start + 1 :])) <= 80


def test_sixty_factors_are_all_shown():
    summary = variances(*map(float, range(1, 61)), residual=1.0)
    for text in (summary.to_text(), summary.to_html()):
        assert all(re.search(rf"\bg{i}\b", text) for i in range(60))


@pytest.mark.parametrize(
    ("n", "max_rows", "first", "last", "left_out"),
    [
        (200, 40, 20, 20, "... 160 coefficients left out ..."),
        (41, 40, 20, 20, "... 1 coefficient left out ..."),
        (9, 5, 3, 2, "... 4 coefficients left out ..."),
        (9, 1, 1, 0, "... 8 coefficients left out ..."),
        (9, 0, 0, 0, "... 9 coefficients left out ..."),
    ],
)
def test_the_middle_of_many_coefficients_is_left_out(n, max_rows, first, last, left_out):
    lines = table(many(n).to_text(max_rows=max_rows), "Fixed effects")[1:]
    assert lines[first] == left_out
    shown = [line.split()[0] for line in lines[:first] + lines[first + 1 :]]
    assert shown == [f"x{i}" for i in [*range(first), *range(n - last, n)]]


def test_all_coefficients_where_asked_for():
    assert len(table(many(40).to_text(), "Fixed effects")) == 41
    assert len(table(many(200).to_text(max_rows=None), "Fixed effects")) == 201
    cells = page(many(200)).cells()
    assert [cell for cell in cells if cell.startswith("x")] == [f"x{i}" for i in range(200)]


def test_html_has_the_cells_of_the_text():
    words = {word for cell in page(SLEEPSTUDY).cells() for word in re.split("[ ,;]+", cell)}
    text = {word for word in re.split("[ ,;:]+", squeezed(SLEEPSTUDY_TEXT)) if "." in word}
    assert text <= words


def test_html_is_semantic_and_self_contained():
    seen = page(SLEEPSTUDY)
    assert seen.open == []
    assert set(seen.tags) == set(
        ["div", "style", "table", "caption", "thead", "tbody", "tr", "th", "td"]
    )
    assert seen.tags["caption"] == seen.tags["table"] == 3
    assert seen.scopes.total() == seen.tags["th"]
    assert set(seen.scopes) == {"row", "col"}
    assert seen.attributes <= {"class", "scope", "colspan"}
    assert not re.search("url|http|@import", SLEEPSTUDY.to_html())


def test_css_applies_to_the_summary_only():
    style = re.search("<style>(.*?)</style>", SLEEPSTUDY.to_html(), re.DOTALL)[1]
    selectors = re.sub(r"\{.*?\}", ",", style, flags=re.DOTALL).split(",")
    assert all(s.strip().startswith(".sklearn-mackay-summary") for s in selectors if s.strip())


def test_names_are_escaped():
    summary = replace(
        SLEEPSTUDY,
        levels={HOSTILE: 3},
        random=(RandomRow(HOSTILE, HOSTILE, 0.0),),
        blocks=(BlockRow(HOSTILE, 3, 0.0, math.inf),),
        fixed=(FixedRow(HOSTILE, 1.0, 1.0),),
        effective_dof={HOSTILE: 1.0},
        icc={HOSTILE: 0.5},
        singular=True,
    )
    shown = HOSTILE.replace("\n", "\\n").replace("\x1b", "\\x1b")
    text, html = summary.to_text(), summary.to_html()
    assert text.count(shown) == text.count("<script>") == 10
    assert "<script" not in html
    assert "\x1b" not in text + html
    assert page(summary).cells().count(shown) == 4


def test_rows_of_html():
    rows = [
        re.findall(r"<(t[hd])[^>]*>(.*?)</t[hd]>", row)
        for row in re.findall("<tr>.*?</tr>", SLEEPSTUDY.to_html().split("Fixed effects")[1])
    ]
    assert rows == [
        [("th", title) for title in FIXED_TITLES],
        [
            ("th", "(Intercept)"),
            *(("td", c) for c in ["251.405", "6.825", "17.0", "36.838", "&lt;2e-16"]),
        ],
        [("th", "Days"), *(("td", c) for c in ["10.467", "1.546", "17.0", "6.771", "3.26e-06"])],
    ]
