"""Structures of covariances by a yes or no, as tests are parametrised."""

from sklearn_mackay.covariances.structures import DIAGONAL, FULL, Structure
from sklearn_mackay.evidence.freedom import Freedom


def structure_of(diagonal: bool) -> Structure:
    return DIAGONAL if diagonal else FULL


def are_diagonal(freedom: Freedom) -> list[bool]:
    return [structure is DIAGONAL for structure in freedom.structures]
