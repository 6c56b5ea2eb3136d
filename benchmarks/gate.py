"""The gate: no ratio over its limit, none worse than the committed one, and no verdict on noise.

A gated ratio fails where even its lower quartile is over the limit, or where it is above the committed ratio by more
than the spreads of both together. Committed ratios of another processor or BLAS are not compared: they split a step
between products and the rest in another way.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .timing import Figure

RECORDS = Path(__file__).with_name("records")
SAME = ("cpu", "blas", "threads", "clock")
TRIES = 6  # how often a noisy case is measured again
EXIT = {"ok": 0, "over": 1, "worse": 1, "too noisy": 3}  # click exits with 2 where it was called wrongly


def committed(command: str, about: dict[str, Any]) -> tuple[dict[tuple, dict], str]:
    """{(case, name, over): figure} of the record that `command` left, if it is of such a machine; and why not."""
    path = RECORDS / f"{command}.json"
    if not path.exists():
        return {}, f"there is no record {path.name} to compare with"
    record = json.loads(path.read_text(encoding="utf-8"))
    other = [name for name in SAME if record[name] != about[name]]
    if other:
        return {}, f"{path.name} is of another machine ({', '.join(other)} differ): its ratios are not compared"
    return {(f["case"], f["limit"]["name"], f["limit"]["over"]): f for f in record["figures"]}, ""


def judge(figure: Figure, before: dict[str, Any] | None) -> str:
    """ok, over, worse or too noisy."""
    if figure.noisy:
        return "too noisy"
    if figure.verdict == "over":
        return "over"
    if before and figure.ratio > before["ratio"] * (1.0 + figure.spread + before["spread"]):
        return "worse"
    return "ok"


def verdict(figures: list[Figure], known: dict[tuple, dict]) -> tuple[str, list[str]]:
    """The word for all gated figures together, and a line for each that is not ok."""
    words, lines = ["ok"], []
    for f in figures:
        if f.limit.gated:
            before = known.get((f.case, f.limit.name, f.limit.over))
            words.append(judge(f, before))
            if words[-1] != "ok":
                than = f", committed {before['ratio']:.3f} ± {before['spread'] / 2:.1%}" if before else ""
                found = f"{f.case}, {f.name} = {f.ratio:.3f} ± {f.spread / 2:.1%}"
                lines.append(f"{words[-1]}: {found}, limit {f.limit.most}{than}")
    return max(words, key=["ok", "too noisy", "worse", "over"].index), lines
