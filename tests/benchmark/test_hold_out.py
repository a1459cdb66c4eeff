"""Held-out training images: which they are, and the folders that hold them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark.study.hold_out import HoldOut, held_out_names, hold_out
from detection.data.coco import read_coco


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], r"\[\] is no object with the fields of CocoIds"),
        ({"images": {}}, r"images: {} is no list; CocoIds needs annotations"),
        (
            {"images": [{"id": 1.5}, {}, 7], "annotations": [{"image_id": None, "bbox": 3}]},
            r"images\[0\]\.id: 1\.5 is no whole number; .*images\[1\]: CocoImage needs id, .*images\[2\]: 7 is no "
            r"object .*annotations\[0\]\.image_id: None is no",
        ),
        ({"images": [{"id": 1}, {"id": "1"}, {"id": 2}], "annotations": []}, r"images: id '1' comes 2 times \(1 such"),
    ],
)
def test_a_coco_file_is_typed_with_all_faults_at_once(content: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "annotations/instances_train2017.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"instances_train2017\.json: no COCO annotations .*{said}"):
        hold_out(HoldOut(tool="train_det", data=tmp_path, share=0.5), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_share_of_the_names_is_held_out() -> None:
    names = [f"{number}.jpg" for number in range(100)]
    away = held_out_names(names, 0.2)
    assert len(away) == 20 and away == held_out_names(names[::-1], 0.2)
    assert held_out_names(names, 0.1) < away  # a smaller share is a part of a larger
    with pytest.raises(ValueError, match=r"0\.9 of 2 training images is held out, so none is left"):
        held_out_names(names[:2], 0.9)


def test_held_out_folders_of_all_layouts(few_scenes: Any, tmp_path: Path) -> None:
    def files(folder: Path) -> set[str]:
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

    cls = tmp_path / "cls"
    hold_out(HoldOut(tool="train_cls", data=few_scenes.imagenet, share=0.25), cls)
    both = files(cls / "train") | files(cls / "val")
    assert both == files(few_scenes.imagenet / "train") and not files(cls / "train") & files(cls / "val")
    seg = tmp_path / "seg"
    said = hold_out(HoldOut(tool="train_seg", data=few_scenes.ade20k, share=0.25), seg)
    assert said == f"{seg}: 9 images to train on, 3 held out."
    stems = {name.rpartition(".")[0] for name in files(seg / "images/validation")}
    assert stems == {name.rpartition(".")[0] for name in files(seg / "annotations/validation")} and len(stems) == 3
    det = tmp_path / "det"
    wanted = HoldOut(tool="train_det", data=few_scenes.coco, share=0.25)
    hold_out(wanted, det)
    whole = json.loads((few_scenes.coco / "annotations/instances_train2017.json").read_text())
    parts = [json.loads((det / f"annotations/instances_{name}.json").read_text()) for name in ("train2017", "val2017")]
    for key in ("images", "annotations"):
        ids = [{item["id"] for item in part[key]} for part in parts]
        assert ids[0] | ids[1] == {item["id"] for item in whole[key]} and not ids[0] & ids[1]
    assert [len(part["images"]) for part in parts] == [9, 3]
    assert (det / "val2017" / parts[1]["images"][0]["file_name"]).is_file()
    assert hold_out(wanted, det) == f"{det}: there already."
    with pytest.raises(ValueError, match=r"holds something else than 0\.5 of"):
        hold_out(replace(wanted, share=0.5), det)
    with pytest.raises(ValueError, match="layout voc: a part can be held out of ade20k and folder alone"):
        hold_out(HoldOut(tool="train_seg", data=few_scenes.ade20k, share=0.5, layout="voc"), tmp_path / "x")
    with pytest.raises(FileNotFoundError, match=r"instances_nine\.json: no such annotations"):
        hold_out(HoldOut(tool="train_det", data=few_scenes.coco, share=0.5, train_split="nine"), tmp_path / "y")


def test_a_flipped_byte_of_held_out_annotations_is_seen(few_scenes: Any, tmp_path: Path) -> None:
    wanted, out = HoldOut(tool="train_det", data=few_scenes.coco, share=0.25), tmp_path / "det"
    hold_out(wanted, out)
    path = out / "annotations" / "instances_val2017.json"
    whole = path.read_bytes()
    right = read_coco(path, data=out, split="val2017").ground_truth
    place = whole.index(b'"bbox": [') + len(b'"bbox": [')
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])  # a digit for another
    said = f"{path}: is not the file whose digest is in instances_val2017.json.sha256 beside it"
    for use in (
        lambda: read_coco(path, data=out, split="val2017"),
        lambda: hold_out(wanted, out),
        lambda: hold_out(replace(wanted, data=out, train_split="val2017"), tmp_path / "again"),
    ):
        with pytest.raises(ValueError, match=said):
            use()
    with pytest.raises(ValueError, match=f"Or remove the folder {out}, which is made anew"):
        hold_out(wanted, out)
    path.write_bytes(whole)
    assert hold_out(wanted, out) == f"{out}: there already."
    path.with_name(f"{path.name}.sha256").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=said):
        read_coco(path, data=out, split="val2017")
    path.with_name(f"{path.name}.sha256").unlink()  # as in folders of before
    assert read_coco(path, data=out, split="val2017").ground_truth == right
