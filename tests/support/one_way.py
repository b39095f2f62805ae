"""The balanced one-way layout: closed forms, and data that NIST certifies."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

# NIST StRD, analysis of variance: https://www.itl.nist.gov/div898/strd/anova/anova.html
SI_RSTV = """
196.3052 196.1240 196.1890 196.2569 196.3403
196.3042 196.3825 196.1669 196.3257 196.0422
196.1303 196.2005 196.2889 196.0343 196.1811
196.2795 196.1748 196.1494 196.1485 195.9885
196.2119 196.1051 196.1850 196.0052 196.2090
"""

# Digits after 107.868.
ATM_WT_AG = """
1568 1465 1572 1785 1446 1903 1526 1494 1616 1587 1519 1486
1419 1569 1508 1672 1385 1518 1662 1424 1360 1333 1610 1477
1079 1344 1513 1197 1604 1385 1642 1365 1151 1082 1517 1448
1198 1482 1334 1609 1101 1512 1469 1360 1254 1261 1450 1368
"""

# set: observations a level, offset, certified tau2 and sigma2, digits to reach
SMALL_LEVELS = {
    "SmLs01": (21, "1", 9.523809523809524e-3, 1e-2, 8),
    "SmLs02": (201, "1", 9.950248756218905e-3, 1e-2, 8),
    "SmLs03": (2001, "1", 9.995002498750625e-3, 1e-2, 8),
    "SmLs04": (21, "1000000", 9.523809523809524e-3, 1e-2, 8),
    "SmLs05": (201, "1000000", 9.950248756218905e-3, 1e-2, 8),
    "SmLs06": (2001, "1000000", 9.995002498750625e-3, 1e-2, 8),
    # Rounding 1e12 + 0.4 to float64 moves the answers to these.
    "SmLs07": (21, "1000000000000", 9.5247138e-3, 1.00005435e-2, 6),
    "SmLs08": (201, "1000000000000", 9.9514365e-3, 1.00005435e-2, 6),
    "SmLs09": (2001, "1000000000000", 9.9962200e-3, 1.00005435e-2, 6),
}


def one_way(rng: np.random.Generator, F: float, *, k: int = 10, m: int = 5) -> np.ndarray:
    """Balanced levels (rows) with mean squares 1 within and exactly F between."""
    within = rng.normal(size=(k, m))
    within -= within.mean(axis=1, keepdims=True)
    within /= np.sqrt(np.sum(within**2) / (k * (m - 1)))
    means = rng.normal(size=k)
    means -= means.mean()
    return within + (means * np.sqrt(F / m) / means.std(ddof=1))[:, None]


def one_way_reml(y: np.ndarray) -> tuple[float, float, float]:
    """tau2, sigma2 and -2 log-likelihood of k levels (rows) with m observations (columns)."""
    k, m = y.shape
    n, means = k * m, y.mean(axis=1)
    msw = np.sum((y - means[:, None]) ** 2) / (k * (m - 1))
    msb = m * np.sum((means - means.mean()) ** 2) / (k - 1)
    constant = (n - 1) * (1 + np.log(2 * np.pi)) + np.log(n)
    if msb > msw:
        criterion = constant + k * (m - 1) * np.log(msw) + (k - 1) * np.log(msb)
        return (msb - msw) / m, msw, criterion
    total = np.sum((y - y.mean()) ** 2) / (n - 1)
    return 0.0, total, constant + (n - 1) * np.log(total)


def small_levels(m: int, offset: str) -> np.ndarray:
    """Nine levels with means .4, .3, .5, .3, .5 ...: the mean, then mean -.1, mean +.1 in turn."""
    deviations = [0, *[-1, 1] * (m // 2)]
    means = (4, 3, 5, 3, 5, 3, 5, 3, 5)
    return np.array([[float(f"{offset}.{mean + d}") for d in deviations] for mean in means])


def exact_mean_squares(y: np.ndarray) -> tuple[float, float]:
    """tau2 and sigma2 in rational arithmetic, of the numbers as float64 holds them."""
    k, m = y.shape
    rows = [[Fraction(float(value)) for value in row] for row in y]
    means = [sum(row) / m for row in rows]
    within = [(v - mean) ** 2 for row, mean in zip(rows, means, strict=True) for v in row]
    msw = sum(within) / (k * (m - 1))
    grand = sum(means) / k
    msb = m * sum((mean - grand) ** 2 for mean in means) / (k - 1)
    return float((msb - msw) / m), float(msw)
