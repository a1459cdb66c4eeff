"""Campaigns of damaged input against one reader: every case is read rightly or refused by a message with the file.

Short in the tests; longer and with other seeds by the environment:

    MAE_TRANSFER_FUZZ_CASES=10000 MAE_TRANSFER_FUZZ_SEED=7 pytest tests/fuzz -s

Flips of single bits over files that the project reads again have a number of their own: MAE_TRANSFER_FLIPS=500.
"""

import copy
import json
import os
import random
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CASES = int(os.environ.get("MAE_TRANSFER_FUZZ_CASES", "0"))
SEED = int(os.environ.get("MAE_TRANSFER_FUZZ_SEED", "0"))
FLIPS = int(os.environ.get("MAE_TRANSFER_FLIPS", "0"))
SECONDS = 20  # after which a case counts as hanging

# what exporters, hands and crashes leave where something else belongs
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 255, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63), 10**30, 10**400, 0.5, -0.0, 1e308,
    float("nan"), float("inf"), float("-inf"), "", "0", "1", "44", "nan", "x" * 300, "a\0b", "\ud800", "../x", "/x",
    "=1+1", [], [[]], [None], [1, 2, 3], [0, 0, 0, 0], {}, {"a": 1}, [float("nan")] * 4, ["a"] * 4, [1e300] * 4,
)  # fmt: skip


def mutate_json(rng: random.Random, value: Any) -> Any:
    """Return a copy of a JSON value with one to three changes: values odd, missing, doubled, of other type or order."""
    box = {"": copy.deepcopy(value)}
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(box))
        if not places:
            break
        parent, key = rng.choice(places)
        old = parent[key]
        change = rng.randrange(9)
        if change <= 3:
            parent[key] = copy.deepcopy(rng.choice(ODD))
        elif change == 4:
            del parent[key]
        elif change == 5 and isinstance(parent, list):
            parent.insert(rng.randrange(len(parent) + 1), copy.deepcopy(old))
        elif change == 6 and isinstance(old, int | float) and not isinstance(old, bool):
            parent[key] = rng.choice((-old, old * 10, old + 1, str(old), [old], old + 0.5 if abs(old) < 2**63 else old))
        elif change == 7 and isinstance(old, list):
            parent[key] = rng.choice((old[:-1], [*old, *old], old[::-1], {"0": old}))
        elif change == 8 and isinstance(parent, dict):
            parent[str(key) + rng.choice((" ", "s", "\u00e9"))] = parent.pop(key)
        else:
            parent[key] = [old]
    return box.get("")


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield value, key
        yield from _places(item)


def json_bytes(rng: random.Random, value: Any) -> bytes:
    """Return a mutated JSON value as text; one case in ten has damaged bytes as well."""
    text = json.dumps(mutate_json(rng, value)).encode()
    return mutate_bytes(rng, text) if rng.random() < 0.1 else text


def mutate_bytes(rng: random.Random, content: bytes) -> bytes:
    """Return bytes with a flip, a cut, zeros, a repeated or a strange part."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(data) + 1)
        change = rng.randrange(6)
        if change == 0 and place < len(data):
            data[place] ^= 1 << rng.randrange(8)
        elif change == 1:
            del data[place:]
        elif change == 2:
            end = min(len(data), place + rng.choice((1, 16, 4096)))
            data[place:end] = bytes(end - place)
        elif change == 3:
            data[place:place] = data[place : place + rng.choice((1, 8, 64))]
        elif change == 4:
            data[place:place] = rng.randbytes(rng.choice((1, 4, 32)))
        else:
            del data[place : place + rng.choice((1, 8, 64))]
    return bytes(data)


class Campaign:
    """Runs cases and says what became of them."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(
        self,
        case: Callable[[random.Random], Any],
        read: Callable[[Any], Any],
        *,
        cases: int,
        names: str,
        refusals: tuple[type[Exception], ...] = (ValueError, OSError),
        seed: int = 0,
    ) -> Counter[str]:
        """Make and read `cases` cases; fail where one is refused otherwise than by a message with `names` in it.

        `read` raises AssertionError where what it got is accepted and wrong.
        """
        total, first = CASES or cases, SEED or seed
        outcomes: Counter[str] = Counter()
        bad: list[str] = []
        for number in range(total):
            rng = random.Random(f"{self.name} {first} {number}")
            given = case(rng)
            try:
                with _limit(SECONDS), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    read(given)
                outcomes["read"] += 1
            except refusals as error:
                if names in str(error):
                    outcomes["refused"] += 1
                else:
                    outcomes["unnamed"] += 1
                    bad.append(f"case {number}: without {names!r}: {type(error).__name__}: {error}"[:500])
            except Exception as error:
                kind = "wrong" if isinstance(error, AssertionError) else "hang" if isinstance(error, _Hang) else "trace"
                outcomes[kind] += 1
                bad.append(f"case {number}: {type(error).__name__}: {error}"[:500])
        rest = sum(outcomes[kind] for kind in ("unnamed", "wrong", "hang", "trace"))
        print(f"\nfuzz | {self.name} | {total} | {outcomes['read']} | {outcomes['refused']} | {rest}")
        assert not bad, f"{len(bad)} of {total} cases (seed {first}):\n" + "\n".join(bad[:20])
        return outcomes


class Flips:
    """Flips single bits of files that are read again, and says what became of it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(
        self,
        files: Sequence[Path],
        use: Callable[[], Any],
        *,
        cases: int,
        reset: Callable[[], None] = lambda: None,
        equal: Callable[[Any, Any], bool] = lambda found, right: bool(found == right),
        refusals: tuple[type[Exception], ...] = (ValueError, OSError),
    ) -> Counter[str]:
        """Flip a bit of one of `files`, `use` them, put the bit back and `reset`, `cases` times.

        Fails where `use` returns something else than with whole files, or raises other than by a message with the name
        of the file or its folder. A fall-back or a remake that returns the same is right.
        """
        right = use()
        reset()
        outcomes: Counter[str] = Counter()
        bad: list[str] = []
        for number in range(FLIPS or cases):
            rng = random.Random(f"{self.name} {SEED} {number}")
            path = rng.choice(list(files))
            whole = path.read_bytes()
            place, bit = rng.randrange(len(whole)), rng.randrange(8)
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            path.write_bytes(bytes(damaged))
            where = f"case {number}: {path.name}, bit {bit} of byte {place} of {len(whole)}"
            try:
                with _limit(SECONDS), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found = use()
                kind = "equal" if equal(found, right) else "wrong"
                if kind == "wrong":
                    bad.append(f"{where}: {str(found)[:200]} for {str(right)[:200]}")
            except refusals as error:
                kind = "refused" if path.name in str(error) or str(path.parent) in str(error) else "unnamed"
                if kind == "unnamed":
                    bad.append(f"{where}: {type(error).__name__}: {error}"[:500])
            except Exception as error:
                kind = "trace"
                bad.append(f"{where}: {type(error).__name__}: {error}"[:500])
            outcomes[kind] += 1
            path.write_bytes(whole)
            reset()
        print(f"\nflips | {self.name} | {FLIPS or cases} | {outcomes['equal']} | {outcomes['refused']} | {len(bad)}")
        assert not bad, f"{len(bad)} flips (seed {SEED}):\n" + "\n".join(bad[:20])
        return outcomes


class _Hang(Exception):
    """A case that took too long."""


@contextmanager
def _limit(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise _Hang(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def campaign(request: pytest.FixtureRequest) -> Campaign:
    """A campaign called as its test."""
    return Campaign(request.node.name.removeprefix("test_"))


@pytest.fixture
def flips(request: pytest.FixtureRequest) -> Flips:
    """Flips of bits, called as their test."""
    return Flips(request.node.name.removeprefix("test_"))


@pytest.fixture(scope="session")
def damaged_json() -> Callable[[random.Random, Any], bytes]:
    """`damaged_json(rng, value)`: the value as JSON text with a few things wrong."""
    return json_bytes


@pytest.fixture(scope="session")
def damaged_value() -> Callable[[random.Random, Any], Any]:
    """`damaged_value(rng, value)`: a JSON value with a few things wrong."""
    return mutate_json


@pytest.fixture(scope="session")
def damaged_bytes() -> Callable[[random.Random, bytes], bytes]:
    """`damaged_bytes(rng, content)`: bytes with a few things wrong."""
    return mutate_bytes
