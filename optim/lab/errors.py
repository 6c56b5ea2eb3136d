"""What the laboratory refuses, in one sentence each."""

from __future__ import annotations

import difflib
from collections.abc import Collection


class UsageError(ValueError):
    """A request that cannot be right: an unknown name, a value out of range, options that exclude each other."""


class LabError(RuntimeError):
    """A request that was right and failed: data of another kind, a folder in use, a run that diverged."""


def near(name: str, valid: Collection[str]) -> str:
    """The words "; did you mean 'x'?" for the valid name that is closest, or nothing."""
    folded = {v.lower(): v for v in valid}
    found = difflib.get_close_matches(name.lower(), folded, 1)
    return f"; did you mean {folded[found[0]]!r}?" if found else ""


def unknown(kind: str, name: str, valid: Collection[str]) -> UsageError:
    """The refusal of a name, with the names that there are."""
    return UsageError(f"unknown {kind} {name!r}; there are {', '.join(valid)}{near(name, valid)}")
