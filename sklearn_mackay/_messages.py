"""What users should know: rooms return messages, faces say them at the user's line."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable
from typing import NamedTuple


class Message(NamedTuple):
    """A sentence or some, and how serious they are."""

    text: str
    category: type[Warning] = UserWarning


def say(messages: Iterable[Message]) -> None:
    """Warn at the line that called the package, however deep the call is in it."""
    package = __name__.split(".")[0]
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] == package:
        frame, level = frame.f_back, level + 1
    for message in messages:
        warnings.warn(message.text, message.category, stacklevel=level)
