"""Records, configuration round trips, files and seeds."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.config import Duration, as_json, differences, with_defaults
from engine.launch import micro_batches
from engine.records.identity import run_id
from engine.records.record import read_record, write_record
from engine.training.loop import fit
from engine.training.seeding import derive, seed_all, seeded
from files.typed import from_json
from files.writing import replacing


@dataclass(frozen=True)
class Inner:
    size: tuple[int, int]
    length: Duration | None = None


@dataclass(frozen=True)
class Outer:
    inner: Inner
    name: str | None = "x"


def test_config_round_trip_through_json() -> None:
    config = Outer(Inner((3, 4), Duration(2, "epochs")), None)
    assert from_json(Outer, json.loads(json.dumps(as_json(config)))) == config


def test_unknown_field_is_refused() -> None:
    with pytest.raises(ValueError, match="Inner has no field seize; it has length, size"):
        from_json(Outer, {"inner": {"seize": 1}})


def test_differences_name_the_field_and_leave_out_what_may_change() -> None:
    old = {"run": {"workers": 1, "seed": 0, "betas": (0.9, 0.95)}, "a": 1}
    new = {"run": {"workers": 4, "seed": 1, "betas": [0.9, 0.95]}, "a": 1}
    assert differences(old, new) == ["run.seed: 0 -> 1"]
    assert run_id({"run": {"workers": 1}}) == run_id({"run": {"workers": 4}})


def test_record_round_trip(toy_task, toy_config, tmp_path) -> None:
    record = fit(toy_task(), toy_config, recipe="toy", out=tmp_path)
    write_record(tmp_path / "copy", record)
    assert read_record(tmp_path / "copy") == read_record(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a readable record"),
        ('{"schema_version": 99}', "schema version 99"),
        ("[1]", "not a readable record"),
    ],
)
def test_bad_records_are_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(ValueError, match=rf"record\.json: .*{message}"):
        read_record(tmp_path)


def test_missing_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such record"):
        read_record(tmp_path)


def test_replacing_keeps_the_old_file_when_the_block_fails(tmp_path: Path) -> None:
    target = tmp_path / "f"
    target.write_text("old")
    with pytest.raises(KeyError), replacing(target) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["f"]


def test_replacing_in_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OSError, match="could not be written"),
        replacing(tmp_path / "file" / "f") as temporary,
    ):
        temporary.write_text("x")


def test_derived_seeds_differ_by_purpose_and_are_stable() -> None:
    assert derive(0, "step", 1) != derive(0, "step", 2) != derive(1, "step", 2)
    # a change of this number would break the resumption of every run there is
    assert derive(0, "order", 0) == 3955691223199900983
    assert 0 <= derive(7, "x") < 2**63


def test_seeded_puts_the_generators_back() -> None:
    seed_all(1)
    expected = (np.random.rand(), torch.rand(1).item())
    seed_all(1)
    with seeded(99):
        np.random.rand(), torch.rand(3)
    assert (np.random.rand(), torch.rand(1).item()) == expected


@pytest.mark.parametrize(
    ("batch", "most", "devices", "expected"),
    [(64, 8, 8, 1), (64, 2, 8, 4), (64, 3, 8, 4), (64, 64, 1, 1), (12, 5, 1, 3), (7, 2, 1, 7), (16384, 512, 8, 4)],
)
def test_micro_batches_by_hand(batch: int, most: int, devices: int, expected: int) -> None:
    assert micro_batches(batch, most, devices) == expected


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 8))
def test_micro_batches_fit_and_are_equal(share: int, most: int, devices: int) -> None:
    count = micro_batches(share * devices, most, devices)
    assert share % count == 0 and share // count <= most
    assert all(share % fewer or share // fewer > most for fewer in range(1, count))


def test_a_batch_that_devices_cannot_share() -> None:
    with pytest.raises(ValueError, match="64 images cannot be shared by 3 processes"):
        micro_batches(64, 8, 3)
    with pytest.raises(ValueError, match="--max-per-device 0: it must be at least 1"):
        micro_batches(64, 0, 1)


def test_a_field_that_came_later_counts_as_its_default(toy_config) -> None:
    config = toy_config
    old = as_json(config)
    del old["run"]["max_megapixels"], old["run"]["schedule"]["gamma"]
    assert with_defaults(old, config) == as_json(config)
    del old["run"]["batch_size"]  # it has no default, so it stays a difference
    assert "batch_size" not in with_defaults(old, config)["run"]
