"""Dataclasses from plain values: what is taken, and what every wrong value is answered with."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from files.typed import from_json


@dataclass(frozen=True)
class Leaf:
    side: int = 1

    def __post_init__(self) -> None:
        if self.side < 1:
            raise ValueError(f"side is {self.side}; it must be at least 1.")


@dataclass(frozen=True, kw_only=True)
class Tree:
    name: str
    seed: int = 0
    rate: float = 1.0
    on: bool = False
    kind: Literal["a", "b"] = "a"
    size: tuple[int, int] = (1, 1)
    shares: tuple[float, ...] = ()
    leaf: Leaf | None = None
    leaves: tuple[Leaf, ...] = ()
    metrics: dict[str, float] | None = None
    either: int | str | None = None
    path: Path | None = None
    extra: Any = None


def test_values_of_every_kind() -> None:
    text = """{"name": "x", "seed": 3, "rate": 2, "on": true, "kind": "b", "size": [4, 5], "shares": [0.5, 1],
        "leaf": {"side": 2}, "leaves": [{}, {"side": 7}], "metrics": {"m": NaN, "n": 1}, "either": "w",
        "path": "a/b", "extra": [{"any": null}]}"""
    read = from_json(Tree, json.loads(text))
    assert read.metrics is not None and math.isnan(read.metrics["m"]) and read.metrics["n"] == 1
    assert read == Tree(
        name="x", seed=3, rate=2, on=True, kind="b", size=(4, 5), shares=(0.5, 1), leaf=Leaf(2),
        leaves=(Leaf(), Leaf(7)), metrics=read.metrics, either="w", path=Path("a/b"), extra=[{"any": None}],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", None, "tree.name: None is no text"),
        ("seed", "x", "tree.seed: 'x' is no whole number"),
        ("seed", True, "tree.seed: True is no whole number"),
        ("seed", 1.0, "tree.seed: 1.0 is no whole number"),
        ("seed", 10**400, "tree.seed: 10000"),
        ("rate", float("nan"), "tree.rate: nan is no finite number"),
        ("rate", 10**400, "is no finite number"),
        ("rate", True, "tree.rate: True is no finite number"),
        ("on", 1, "tree.on: 1 is neither true nor false"),
        ("kind", "c", "tree.kind: 'c' is none of a, b"),
        ("kind", [], r"tree.kind: \[\] is none of a, b"),
        ("size", [1], r"tree.size: \[1\] is no list of 2"),
        ("size", "44", "tree.size: '44' is no list of 2"),
        ("size", [1, None], r"tree.size\[1\]: None is no whole number"),
        ("shares", {"0": 1}, "tree.shares: {'0': 1} is no list"),
        ("leaf", [], r"tree.leaf: \[\] is no object with the fields of Leaf"),
        ("leaf", {"sides": 1}, "tree.leaf: Leaf has no field sides; it has side"),
        ("leaves", [{}, {"side": 0}], r"tree.leaves\[1\]: side is 0; it must be at least 1"),
        ("metrics", {"m": "9"}, "tree.metrics.m: '9' is no number"),
        ("metrics", {"m": None}, "tree.metrics.m: None is no number"),
        ("metrics", [], r"tree.metrics: \[\] is no object"),
        ("either", 0.5, "tree.either: 0.5 is no whole number; tree.either: 0.5 is no text"),
        ("path", "a\0b", "is no path"),
        ("colour", 1, "tree: Tree has no field colour; it has either, extra, "),
    ],
)
def test_wrong_values_are_named_with_their_place(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_json(Tree, {"name": "x", field: value}, place="tree")


def test_all_faults_are_said_at_once() -> None:
    with pytest.raises(ValueError) as caught:
        from_json(Tree, {"seed": "x", "size": [0.5, 1], "leaf": {"side": -1}})
    assert str(caught.value) == (
        "seed: 'x' is no whole number; size[0]: 0.5 is no whole number; leaf: side is -1; it must be at least 1; "
        "Tree needs name, which is not there"
    )
    with pytest.raises(ValueError, match=r"shares\[9\]: None is no finite number; and 90 more$"):
        from_json(Tree, {"name": "x", "shares": [None] * 100})


def test_what_is_no_object() -> None:
    with pytest.raises(ValueError, match=r"^\[1\] is no object with the fields of Tree$"):
        from_json(Tree, [1])
