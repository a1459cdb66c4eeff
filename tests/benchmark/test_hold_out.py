"""Held-out training images: which they are, and the folders that hold them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark.study.hold_out import HoldOut, held_out_names, hold_out
from benchmark.study.prepare import prepare
from detection.data.coco import read_coco
from tools.run_benchmark import TOOLS


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


def test_a_path_from_another_folder_is_the_same_path(
    few_scenes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study here gives the path as it is in its file, one on SLURM the whole of it."""
    annotations = few_scenes.coco / "annotations/instances_train2017.json"
    (tmp_path / "link").symlink_to(few_scenes.coco)
    monkeypatch.chdir(few_scenes.coco.parent)
    name, out = Path(few_scenes.coco.name), tmp_path / "out"
    relative = HoldOut(tool="train_det", data=name, share=0.25, train_json=name / "annotations" / annotations.name)
    whole = replace(relative, data=few_scenes.coco, train_json=annotations)
    linked = replace(whole, data=tmp_path / "link")
    for first in (relative, whole):
        hold_out(first, out)
        for again in (whole, relative, linked):
            assert hold_out(again, out) == f"{out}: there already."
        with pytest.raises(ValueError, match="holds something else"):
            hold_out(replace(whole, train_json=None), out)
        with pytest.raises(ValueError, match="holds something else"):
            hold_out(replace(relative, data=Path()), out)
        shutil.rmtree(out)
    hold_out(whole, out)
    kept = json.loads((out / "held_out.json").read_text())  # as before paths were made whole
    (out / "held_out.json").write_text(json.dumps({**kept, "data": str(name), "train_json": str(relative.train_json)}))
    assert hold_out(whole, out) == f"{out}: there already."


def lvis(coco: Path, path: Path) -> None:
    """Leave training annotations as LVIS has them: no file name, and an address that ends with the folder."""
    content = json.loads((coco / "annotations/instances_train2017.json").read_text())
    for image in content["images"]:
        image["coco_url"] = f"http://images/train2017/{image.pop('file_name')}"
    path.write_text(json.dumps(content))


def test_images_of_lvis_are_held_out_of_cocos_folders(few_scenes: Any, tmp_path: Path) -> None:
    """There is no folder of the split, and the address of an image names the one that it is in."""
    path, out = tmp_path / "lvis_v1_train.json", tmp_path / "out"
    lvis(few_scenes.coco, path)
    wanted = HoldOut(tool="train_det", data=few_scenes.coco, share=0.25, train_split="lvis_v1_train", train_json=path)
    assert hold_out(wanted, out) == f"{out}: 9 images to train on, 3 held out."
    for split, count in (("train2017", 9), ("val2017", 3)):
        records = read_coco(out / f"annotations/instances_{split}.json", data=out, split=split).records
        assert len(records) == count and all(Path(record["file_name"]).is_file() for record in records)
    path.write_text(path.read_text().replace("/train2017/", "/../"))
    with pytest.raises(FileNotFoundError, match=r"lvis_v1_train: no such folder; --data and --train-split name"):
        hold_out(wanted, tmp_path / "other")
    assert not (tmp_path / "other").exists()


LVIS = """
name: rare
data: root
seeds: [0]
arms: {random: random, mae: {init: w.pth, init_source: mae}}
tasks:
  lvis:
    {tool: train_det, recipe: vitdet_lvis_base, data: coco, train_json: train.json, val_json: val.json,
     search: {base_lrs: [1.0e-4, 2.0e-4], hold_out: 0.1}}
  coco: {tool: train_det, recipe: vitdet_base, data: coco, search: {base_lrs: [1.0e-4, 2.0e-4], hold_out: 0.1}}
compare: {against: random}
"""


def test_a_search_on_held_out_images_takes_the_usual_names_of_any_recipe(tmp_path: Path) -> None:
    """The recipe's splits are divided; what the division writes is called as COCO's."""
    (tmp_path / "root/coco").mkdir(parents=True)
    for name in ("w.pth", "train.json", "val.json"):
        (tmp_path / "root" / name).write_text("{}")
    (tmp_path / "rare.yaml").write_text(LVIS)
    made = prepare(str(tmp_path / "rare.yaml"), TOOLS, studies=tmp_path, out=tmp_path / "out", root=tmp_path / "root")
    made.refuse()
    runs = {run.name: run for run in made.runs}
    names = ("train_split", "val_split", "train_json", "val_json")

    def splits(run: str) -> list[Any]:
        settings = runs[run].settings
        assert settings is not None
        return [settings[name] for name in names]

    root = tmp_path / "root"
    assert splits("lvis-mae-seed0") == ["lvis_v1_train", "lvis_v1_val", f"{root}/train.json", f"{root}/val.json"]
    for task in ("lvis", "coco"):
        assert splits(f"search-{task}-mae-lr0.0001") == ["train2017", "val2017", None, None]
    command = runs["hold-out-lvis"].command
    assert command[command.index("--train-split") + 1] == "lvis_v1_train"
    assert command[command.index("--train-json") + 1] == f"{root}/train.json"
    assert "--train-split" not in runs["hold-out-coco"].command


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
