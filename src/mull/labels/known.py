"""Values of branches as they become known, kept in a file: a killed labelling pays once."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from mull.errors import ConfigChangedError, CorruptRecordError
from mull.fileio import write_atomic
from mull.labels.rollouts import Value
from mull.store import canonical, digest, plain, usage_of
from mull.types import Branch, Usage

FILE: Final = "rollouts.json"


class Known:
    """What is known of branches, by their texts; ``usage`` is what it cost, earlier work included.

    With a ``folder`` it is written there every ``every`` seconds and at ``save``, and read back; a
    branch of which no rollout came back is not written, and so asked again. ``identity`` is what
    the values depend on.

    Raises:
        ConfigChangedError: the folder's file holds values of another identity.
        CorruptRecordError: it holds none.
    """

    def __init__(
        self, identity: Mapping[str, Any], folder: Path | None = None, every: float = 60.0
    ) -> None:
        self.identity = json.loads(canonical(identity))
        self.path = None if folder is None else folder / FILE
        self.every = every
        self.usage = Usage()
        self._values: dict[str, float] = {}
        self._saved = time.monotonic()
        if self.path is not None and self.path.exists():
            self._read(self.path)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, branch: Branch) -> bool:
        return place(branch) in self._values

    def __getitem__(self, branch: Branch) -> float:
        return self._values[place(branch)]

    @property
    def unknown(self) -> int:
        """Branches of which no rollout came back."""
        return sum(map(math.isnan, self._values.values()))

    def note(self, value: Value) -> None:
        """One more value."""
        self.usage = self.usage + value.usage
        self._values[place(value.branch)] = value.mean
        if time.monotonic() - self._saved >= self.every:
            self.save()

    def save(self) -> None:
        """Write what is known, if there is a file for it."""
        if self.path is None:
            return
        values = {at: mean for at, mean in self._values.items() if not math.isnan(mean)}
        data = {"identity": self.identity, "usage": plain(self.usage), "values": values}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, json.dumps(data))
        self._saved = time.monotonic()

    def forget(self) -> None:
        """Remove the file: what was labelled has been learned."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _read(self, path: Path) -> None:
        try:
            data = json.loads(path.read_text("utf-8"))
            before, usage = dict(data["identity"]), usage_of(data["usage"])
            values = {str(at): float(mean) for at, mean in dict(data["values"]).items()}
            if not all(0.0 <= mean <= 1.0 for mean in values.values()):
                raise ValueError("a value is no share of rollouts")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorruptRecordError(
                f"{path} holds no values of rollouts ({error}); remove it to make them anew"
            ) from error
        changed = [n for n, value in self.identity.items() if before.get(n) != value]
        if changed:
            was = ", ".join(f"{n} {before.get(n)} -> {self.identity[n]}" for n in changed)
            raise ConfigChangedError(
                f"{path} holds values of other rollouts: {was}; remove it to make them anew"
            )
        self.usage, self._values = usage, values


def place(branch: Branch) -> str:
    """A branch by what it says, wherever it came from."""
    return digest([branch.problem.id, branch.prompt.plain, branch.text]).hex()[:32]
