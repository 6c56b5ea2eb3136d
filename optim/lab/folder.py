"""The folder of a run: run.json, metrics.jsonl, a checkpoint for each method, figure.png; never a half-written file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from minigrad.archive import read_npz, replacing, write_npz

from .errors import LabError, UsageError


class Folder:
    """One call's results.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path):
        self.path = path
        self.metrics = path / "metrics.jsonl"

    @staticmethod
    def check_free(path: Path, overwrite: bool = False) -> None:
        """Refuse a folder with a run in it, unless it may be replaced.

        Raises
        ------
        UsageError
            One sentence with the three ways out.
        """
        if (path / "run.json").exists() and not overwrite:
            raise UsageError(
                f"{path} holds a run already; continue it with --resume {path}, replace it with --overwrite, "
                "or take another --out"
            )

    @classmethod
    def create(cls, path: Path, overwrite: bool = False) -> Folder:
        """A folder for a new run.

        Raises
        ------
        UsageError
            There is a run in it already.
        LabError
            It cannot be made.
        """
        cls.check_free(path, overwrite)
        folder = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            folder.metrics.unlink(missing_ok=True)
            if (path / "run.json").exists():
                folder._clear()
        except OSError as error:
            raise LabError(f"{path} cannot be written ({error.strerror}); choose another --out") from error
        return folder

    def _clear(self) -> None:
        """Remove what a run writes, and nothing else; run.json last, for it marks the folder as taken."""
        (self.path / "figure.png").unlink(missing_ok=True)
        for method in self.facts()["methods"]:
            self._checkpoint_path(method["label"]).unlink(missing_ok=True)
        (self.path / "run.json").unlink()

    # ---------------------------------------------------------------------------------------------------- run.json

    def describe(self, facts: Mapping[str, Any]) -> None:
        """Write run.json."""
        text = json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False)
        with replacing(self.path / "run.json") as stream:
            stream.write(text.encode() + b"\n")

    def facts(self) -> dict[str, Any]:
        """Read run.json.

        Raises
        ------
        LabError
            There is none, or it is damaged.
        """
        path = self.path / "run.json"
        if not path.is_file():
            raise LabError(f"{self.path} holds no run (there is no run.json in it); check the path")
        try:
            facts = json.loads(path.read_bytes())
            for key in ("problem", "data", "seed", "budget", "methods", "device", "dtype", "fingerprint"):
                facts[key]
            return facts
        except (ValueError, KeyError, TypeError) as error:
            told = f"{path} is damaged ({type(error).__name__}: {error}); train anew with another --out"
            raise LabError(told) from error

    # ----------------------------------------------------------------------------------------------- metrics.jsonl

    def log(self, line: Mapping[str, Any]) -> None:
        """Add a line."""
        with self.metrics.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")

    def lines(self) -> list[dict]:
        """All lines; a last one that a crash cut off is left out.

        Raises
        ------
        LabError
            A line before the last cannot be read.
        """
        if not self.metrics.is_file():
            return []
        texts = self.metrics.read_text(encoding="utf-8", errors="replace").split("\n")
        found = []
        for number, text in enumerate(texts[:-1], 1):  # what follows the last newline is torn or empty
            try:
                line = json.loads(text)
                line["method"], line["step"]
            except (ValueError, KeyError, TypeError) as error:
                raise LabError(f"{self.metrics} is damaged in line {number}; remove that line") from error
            found.append(line)
        return found

    def rewrite(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Replace all lines at once."""
        with replacing(self.metrics) as stream:
            for line in lines:
                stream.write((json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n").encode())

    # ------------------------------------------------------------------------------------------------- checkpoints

    def _checkpoint_path(self, label: str) -> Path:
        return self.path / f"{re.sub(r'[^A-Za-z0-9._-]', '-', label)}.npz"

    def save(self, label: str, arrays: Mapping[str, Any]) -> None:
        """Write the checkpoint of a method."""
        write_npz(self._checkpoint_path(label), arrays)

    def checkpoint(self, label: str) -> dict[str, Any] | None:
        """The checkpoint of a method; None before its first."""
        path = self._checkpoint_path(label)
        return read_npz(path) if path.is_file() else None
