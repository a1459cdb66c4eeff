"""Written scenes: byte for byte repeatable, disjoint splits, readable by the hosts' own readers."""

import json
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from scenes.classes import WORLDS
from scenes.config import SPLITS, SceneCounts, ScenesConfig, Split, image_id, split_seed
from scenes.layouts import ScenesIndex, write_scenes
from scenes.scene import render_scene
from scenes.sheet import write_contact_sheet

COUNTS = SceneCounts(classify_train=40, classify_val=16, classify_test=8, dense_train=16, dense_val=24, dense_test=3)
WORLD = WORLDS["outdoor"]
CONFIG = ScenesConfig(seed=5, image_size=(48, 72), counts=COUNTS)

INDOOR = replace(
    CONFIG, world="indoor", counts=replace(COUNTS, classify_train=24, classify_val=12, classify_test=12, dense_val=60)
)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> ScenesIndex:
    return write_scenes(tmp_path_factory.mktemp("scenes") / "new" / "a", CONFIG)


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_same_config_same_bytes(index: ScenesIndex, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    again = write_scenes(tmp_path / "b", CONFIG)
    assert contents(again.root) == contents(index.root)
    assert again.digest == index.digest
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_finished_folder_is_left_alone(index: ScenesIndex) -> None:
    before = {path: path.stat().st_mtime_ns for path in index.root.rglob("*")}
    assert write_scenes(index.root, CONFIG) == index
    assert {path: path.stat().st_mtime_ns for path in index.root.rglob("*")} == before


def test_a_flip_of_any_file_is_seen(index: ScenesIndex) -> None:
    rng = random.Random(0)
    files = sorted(path for path in index.root.rglob("*") if path.is_file() and path.name != "contact_sheet.png")
    for path in rng.sample(files, 12):
        content = path.read_bytes()
        place = rng.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises((ValueError, OSError), match=index.root.name):
            write_scenes(index.root, CONFIG)
        path.unlink()
        with pytest.raises((ValueError, OSError), match=index.root.name):
            write_scenes(index.root, CONFIG)
        path.write_bytes(content)
    assert write_scenes(index.root, CONFIG) == index


def test_the_default_world_keeps_its_bytes(tmp_path: Path) -> None:
    """Digest of the pictures, maps and annotations from before there were two worlds."""
    counts = SceneCounts(classify_train=8, classify_val=8, classify_test=8, dense_train=2, dense_val=2, dense_test=2)
    assert (
        write_scenes(tmp_path / "s", ScenesConfig(seed=5, counts=counts)).digest
        == "f10d629f3c5adcb20d60496ad9d510cbefacf63ac41b8100a72fc41d214b6352"
    )


def test_a_folder_from_before_there_were_worlds_is_the_default_world(index: ScenesIndex, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(index.root, old)
    note = json.loads((old / "scenes.json").read_text())
    assert note["config"].pop("world") == "outdoor"
    (old / "scenes.json").write_text(json.dumps(note))
    assert write_scenes(old, CONFIG).digest == index.digest
    with pytest.raises(FileExistsError, match=r'found .*"world": "outdoor".*asked for .*"world": "indoor"'):
        write_scenes(old, INDOOR)


def test_the_other_world_in_all_layouts(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "a", INDOOR).root
    assert contents(root) == contents(write_scenes(tmp_path / "b", INDOOR).root)
    world = WORLDS["indoor"]
    assert sorted(path.name for path in (root / "imagenet/train").iterdir()) == [kind.name for kind in world.things]
    coco = COCO(root / "coco/annotations/instances_val2017.json")
    assert coco.getCatIds() == [kind.coco_id for kind in world.things]
    info = [line.split("\t")[4] for line in (root / "ade20k/objectInfo24.txt").read_text().splitlines()[1:]]
    assert tuple(info) == world.semantic_names
    seen = {
        int(value) for path in (root / "ade20k/annotations/validation").iterdir() for value in np.unique(read(path))
    }
    assert seen == set(range(25))
    sheet = write_contact_sheet(ScenesIndex(root=root, config=INDOOR, digest=""), tmp_path / "sheet.png", rows=1)
    assert sheet.is_file()


def test_another_seed_gives_another_digest(index: ScenesIndex, tmp_path: Path) -> None:
    assert write_scenes(tmp_path / "c", replace(CONFIG, seed=6)).digest != index.digest


def test_counts_on_disk(index: ScenesIndex) -> None:
    for split in SPLITS:
        folders = sorted((index.imagenet / split.name).iterdir())
        assert [folder.name for folder in folders] == [thing.name for thing in WORLD.things]
        assert sum(len(list(folder.iterdir())) for folder in folders) == COUNTS.classify(split)
        for folder in (
            index.coco / split.coco,
            index.ade20k / "images" / split.ade20k,
            index.ade20k / "annotations" / split.ade20k,
        ):
            assert len(list(folder.iterdir())) == COUNTS.dense(split)


def test_streams_are_disjoint(index: ScenesIndex) -> None:
    seeds = [split_seed(seed, split) for seed in range(4) for split in SPLITS]
    assert len(set(seeds)) == len(seeds)
    images: dict[str, set[bytes]] = {}
    for split in SPLITS:
        folders = ((index.imagenet / split.name).glob("*/*.jpg"), (index.coco / split.coco).glob("*.jpg"))
        images[split.name] = {path.read_bytes() for paths in folders for path in paths}
        assert len(images[split.name]) == max(COUNTS.classify(split), COUNTS.dense(split))
    assert not images["train"] & images["val"]
    assert not images["train"] & images["test"]
    assert not images["val"] & images["test"]


def test_one_image_in_all_layouts(index: ScenesIndex) -> None:
    stem = f"{image_id(SPLITS[0], 2):012d}"
    assert stem == "000000000003"
    paths = [
        index.imagenet / "train" / "cross" / f"{stem}.jpg",
        index.coco / "train2017" / f"{stem}.jpg",
        index.ade20k / "images" / "training" / f"{stem}.jpg",
    ]
    assert len({path.read_bytes() for path in paths}) == 1
    drawn = render_scene(WORLD, split_seed(5, SPLITS[0]), 2, (48, 72)).image_HW3.astype(float)
    # JPEG at quality 95 moves the grain by about three levels of 255; another scene differs by about fifty.
    assert np.abs(read(paths[0]).astype(float) - drawn).mean() < 5.0


@pytest.mark.parametrize("split", SPLITS, ids=lambda split: split.name)
def test_coco_reads_back_exactly(index: ScenesIndex, split: Split) -> None:
    coco = COCO(index.coco / "annotations" / f"instances_{split.coco}.json")
    assert sorted(coco.imgs) == [image_id(split, number) for number in range(COUNTS.dense(split))]
    assert coco.getCatIds() == [thing.coco_id for thing in WORLD.things] == [1, 2, 4, 5, 7, 10, 11, 13]
    for number in range(COUNTS.dense(split)):
        scene = render_scene(WORLD, split_seed(5, split), number, (48, 72))
        annotations = coco.imgToAnns[image_id(split, number)]
        assert len(annotations) == len(scene.instances)
        image = coco.imgs[image_id(split, number)]
        pixels_HW3 = read(index.coco / split.coco / image["file_name"])
        assert pixels_HW3.shape == (image["height"], image["width"], 3)
        for annotation, instance in zip(annotations, scene.instances, strict=True):
            mask_HW = coco.annToMask(annotation).astype(bool)
            np.testing.assert_array_equal(mask_HW, instance.mask_HW)
            assert annotation["category_id"] == instance.category.coco_id
            assert annotation["area"] == mask_HW.sum()
            assert tuple(annotation["bbox"]) == instance.box_xywh
            assert annotation["iscrowd"] == 0


def test_label_maps_agree_with_coco(index: ScenesIndex) -> None:
    coco = COCO(index.coco / "annotations" / "instances_val2017.json")
    semantic_ids = {thing.coco_id: thing.semantic_id for thing in WORLD.things}
    seen: set[int] = set()
    for identifier in coco.imgs:
        labels_HW = read(index.ade20k / "annotations" / "validation" / f"{identifier:012d}.png")
        assert labels_HW.dtype == np.uint8
        assert labels_HW.shape == (48, 72)
        things_HW = np.zeros_like(labels_HW)
        for annotation in coco.imgToAnns[identifier]:
            things_HW[coco.annToMask(annotation) > 0] = semantic_ids[annotation["category_id"]]
        np.testing.assert_array_equal(np.where(labels_HW > 8, labels_HW, 0), things_HW)
        seen |= set(np.unique(labels_HW).tolist())
    assert seen == set(range(17))


def test_object_info_counts(index: ScenesIndex) -> None:
    lines = (index.ade20k / "objectInfo16.txt").read_text().splitlines()
    assert lines[0].split("\t") == ["Idx", "Ratio", "Train", "Val", "Name"]
    rows = [line.split("\t") for line in lines[1:]]
    assert [row[0] for row in rows] == [str(number) for number in range(1, 17)]
    assert tuple(row[4] for row in rows) == WORLD.semantic_names
    # Sixteen ratios rounded to four digits.
    assert sum(float(row[1]) for row in rows) == pytest.approx(1.0, abs=16 * 5e-5)
    maps = [read(path) for path in (index.ade20k / "annotations" / "training").iterdir()]
    for row in rows:
        assert int(row[2]) == sum(bool((labels_HW == int(row[0])).any()) for labels_HW in maps)


def test_contact_sheet_has_a_panel_per_scene(index: ScenesIndex, tmp_path: Path) -> None:
    height, width, _ = read(write_contact_sheet(index, tmp_path / "sheet.png", split="val", rows=2)).shape
    # 72 x 48 at four times the size, image and map, six panels: three columns, two rows and the legend.
    assert width == 3 * (2 * 288 + 2 + 8)
    assert height > 2 * (192 + 18 + 8)


def test_refuses_a_folder_with_another_config(index: ScenesIndex) -> None:
    message = r'holds other scenes: found .*"seed": 5.*asked for .*"seed": 7.*pass a new folder'
    with pytest.raises(FileExistsError, match=message):
        write_scenes(index.root, replace(CONFIG, seed=7))


def test_refuses_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=re.escape(f"{tmp_path} is not empty and has no scenes.json")):
        write_scenes(tmp_path, CONFIG)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(CONFIG, seed=-1), "seed -1: scenes are numbered from seed 0"),
        (replace(CONFIG, world="moon"), "no world of scenes is called 'moon'; there are outdoor, indoor."),  # type: ignore[arg-type]
        (replace(INDOOR, counts=replace(COUNTS, classify_val=11)), "classify_val=11: needs 12"),
        (replace(CONFIG, image_size=(64, 16)), "image size 64x16: scenes need 32 pixels"),
        (replace(CONFIG, counts=replace(COUNTS, classify_val=7)), "classify_val=7: needs 8"),
        (replace(CONFIG, counts=replace(COUNTS, dense_train=0)), "dense_train=0: needs 1 to"),
    ],
)
def test_refuses_bad_numbers(config: ScenesConfig, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        write_scenes(tmp_path / "out", config)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(path: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_scenes(tmp_path / "out", CONFIG)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("note", "said"),
    [
        ([], "[] is no object with the fields of Note"),
        ({"version": "1", "config": 3}, "version: '1' is no whole number; config: 3 is no object; Note needs digest"),
    ],
)
def test_the_note_is_typed_with_all_faults_at_once(note: object, said: str, tmp_path: Path) -> None:
    (tmp_path / "scenes.json").write_text(json.dumps(note))
    with pytest.raises(
        ValueError, match=re.escape(f"{tmp_path / 'scenes.json'}: not the note of a folder of scenes (")
    ) as e:
        write_scenes(tmp_path, ScenesConfig())
    assert said in str(e.value)


def test_scenes_json_names_all(index: ScenesIndex) -> None:
    record = json.loads((index.root / "scenes.json").read_text())
    assert record["config"]["seed"] == 5
    assert record["config"]["counts"]["dense_val"] == 24
    assert record["digest"] == index.digest
    assert record["stuff"] + record["things"] == list(WORLD.semantic_names)
