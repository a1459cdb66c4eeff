"""Where the images of pre-training come from: two folders, or one of which a stated share is held out."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.config import UnlabelledSplits
from engine.records.record import read_record
from pretraining.splits import held_out, open_splits
from tools import evaluate, pretrain

NAMES = [f"{number}.png" for number in range(20)]


def photographs(folder: Path, names: list[str] = NAMES) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16, 3), number, np.uint8)).save(path)
    return folder


def ids(part) -> list[str]:
    return [part.image_id(number) for number in range(len(part))]


def test_two_folders_are_as_they_were(tmp_path: Path) -> None:
    photographs(tmp_path / "train"), photographs(tmp_path / "val", NAMES[:3])
    splits = open_splits(tmp_path, UnlabelledSplits())
    assert (ids(splits.train), ids(splits.val)) == (sorted(NAMES), NAMES[:3])
    assert (splits.train_split, splits.val_split, splits.notes) == ("train", "val", ())


@pytest.mark.parametrize(("below", "split"), [("", "."), ("train", "train")])
def test_a_share_is_held_out(below: str, split: str, tmp_path: Path) -> None:
    photographs(tmp_path / below)
    splits = open_splits(tmp_path, UnlabelledSplits(held_out=0.25))
    train, val = ids(splits.train), ids(splits.val)
    assert len(val) == 5 and sorted(train + val) == sorted(NAMES)
    assert (splits.train_split, splits.val_split) == (split, f"held out of {split}")
    (note,) = splits.notes
    assert f"of 20 images below {tmp_path / split} 5 are held out for validation (held_out 0.25, chosen by" in note
    for part in (splits.train, splits.val):
        assert np.asarray(part.read(0))[0, 0, 0] == NAMES.index(part.image_id(0))
    assert ids(open_splits(tmp_path, UnlabelledSplits(held_out=0.25)).val) == val, "the same in every run"


def test_the_choice_follows_from_the_names_alone() -> None:
    chosen = {NAMES[number] for number in held_out(NAMES, share=0.25, of=Path("d"))}
    turned = NAMES[::-1]
    assert {turned[number] for number in held_out(turned, share=0.25, of=Path("d"))} == chosen
    assert [len(held_out(NAMES, share=share, of=Path("d"))) for share in (0.001, 0.1, 0.999)] == [1, 2, 19]


def test_what_cannot_be_held_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="held_out is 1; it must be above 0 and below 1"):
        held_out(NAMES, share=1.0, of=Path("d"))
    with pytest.raises(ValueError, match="d: holds a single image"):
        held_out(["a.png"], share=0.1, of=Path("d"))
    photographs(tmp_path / "train")
    with pytest.raises(FileNotFoundError, match="mine: no such folder"):
        open_splits(tmp_path, UnlabelledSplits(val_split="mine"))


def test_folders_of_a_flat_set_are_named(tmp_path: Path) -> None:
    photographs(tmp_path, [*(f"a/{name}" for name in NAMES), "b/1.png", "2.png"])
    (note,) = open_splits(tmp_path, UnlabelledSplits()).notes
    assert "(a 20, b 1, . 1)" in note or "(a 20, . 1, b 1)" in note


def test_a_run_on_a_flat_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = photographs(tmp_path / "photos"), tmp_path / "run"
    flags = ["tiny", "--data", str(data), "--steps", "1", "--batch-size", "2", "--statistics"]
    assert pretrain.main([*flags, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "18 training and 2 validation images" in said and "2 are held out for validation" in said
    record = read_record(out)
    assert (record.train_images, record.val_images, record.val_split) == (18, 2, "held out of .")
    assert any("2 are held out" in note for note in record.data_notes)
    assert evaluate.main([str(out)]) == 0
    assert f"val_loss {record.metrics['val_loss']:.4f}" in capsys.readouterr().out
    assert pretrain.main([*flags, "--out", str(data / "run")]) == 1
    assert "photos" in capsys.readouterr().err and not (data / "run").exists()
