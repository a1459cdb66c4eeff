"""A file's digest of itself: kept through JSON, true of every value, absent in older files."""

import json
import random

import pytest

from files.digest import sealed, unsealed

VALUES = {
    "metric": 61.25,
    "nan": float("nan"),
    "big": 10**30,
    "list": (1, "\ud800 \u00e9"),
    "by": {7: 0.1},
    "none": None,
}


def test_what_was_sealed_is_opened_again() -> None:
    text = json.dumps(sealed(VALUES), indent=1)
    assert json.dumps(unsealed(json.loads(text), "f")) == json.dumps(VALUES)


def test_what_has_no_seal_is_taken_as_it_is() -> None:
    assert unsealed({"a": 1}, "f") == {"a": 1}


def test_no_bit_flipped_gives_another_value() -> None:
    text = json.dumps(sealed(VALUES), indent=1).encode()
    outcomes = {"same": 0, "refused": 0}
    for place in random.Random(0).sample(range(len(text) * 8), 600):
        damaged = bytearray(text)
        damaged[place // 8] ^= 1 << place % 8
        try:
            found = json.loads(bytes(damaged))
            values = unsealed(found, "f")
        except ValueError:
            outcomes["refused"] += 1
            continue
        if values.keys() != VALUES.keys():  # the seal's name was hit, and the reader refuses a name it does not know
            outcomes["refused"] += 1
            continue
        assert json.dumps(values) == json.dumps(VALUES)
        outcomes["same"] += 1
    assert outcomes["refused"] > 500


def test_an_edited_value_is_refused_with_the_way_out() -> None:
    with pytest.raises(
        ValueError, match=r"^run/record\.json: its content is not what was written.*remove its 'sha256'"
    ):
        unsealed({**sealed(VALUES), "metric": 62.25}, "run/record.json")
