"""The task: facts, results, metrics, pictures, weights, and the command line."""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as rle
import pytest
import torch
from PIL import Image

from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from backbones.weights.declaration import InitialWeights
from backbones.weights.normalisation import Normalisation
from detection.config import DetectionConfig
from detection.recipes.all import RECIPES
from detection.task import DetectionTask, build_task
from detection.trained import TrainedDetector
from engine.config import Duration, as_json
from engine.records.results_file import ImageResult
from engine.runs.reopen import Asked, reevaluate
from engine.training.loop import fit
from engine.training.seeding import seed_all
from files.typed import from_json
from mae_transfer.tasks import TASKS
from metrics.coco_ap import ap_from_matches
from scenes.layouts import ScenesIndex
from tools.train_det import main


@pytest.fixture
def task(small_config: DetectionConfig, few_scenes: ScenesIndex) -> DetectionTask:
    """The small model on a few scenes, reporting detections of any score."""
    seed_all(0)
    heads = replace(small_config.heads, score_threshold=0.0)
    return build_task(replace(small_config, heads=heads), data=few_scenes.coco, init=None)


def perfect(task: DetectionTask) -> list[ImageResult]:
    """The ground truth as results."""
    results = []
    for image in task.val.ground_truth["images"]:
        found = []
        for annotation in task.val.ground_truth["annotations"]:
            if annotation["image_id"] == image["id"]:
                packed = rle.merge(rle.frPyObjects(annotation["segmentation"], image["height"], image["width"]))
                mask = {"size": packed["size"], "counts": packed["counts"].decode()}
                found.append({k: annotation[k] for k in ("category_id", "bbox")} | {"score": 1.0, "segmentation": mask})
        path = next(r["file_name"] for r in task.val.records if r["image_id"] == image["id"])
        results.append(ImageResult(path, {"coco_image_id": image["id"], "detections": found}))
    return results


def test_facts(task: DetectionTask, few_scenes: ScenesIndex) -> None:
    facts = task.facts
    assert (facts.train_images, facts.val_images) == (12, 6)
    assert facts.weights.source == "random" and facts.data == str(few_scenes.coco)
    assert (
        facts.extra["masks"]
        and [name for _, name in facts.extra["categories"]][:2] == ["ball", "cone"]
        and facts.data_notes == ()
    )
    # 64 tokens: patches 3*64*32, per block 12*32*32 in matmuls and 2*64*32 in attention, plus norms
    matmuls = 64 * (3 * 64 * 32 + 2 * (12 * 32 * 32 + 2 * 64 * 32))
    assert matmuls <= facts.flops_per_image < 1.1 * matmuls


def test_a_pass_with_repeats_is_the_same_for_every_seed(small_config: DetectionConfig, few_scenes: ScenesIndex) -> None:
    """As with a fraction of the labels: else the pass has another length, and runs of two seeds are not compared."""
    repeated = replace(small_config, repeat_threshold=1.0)
    tasks = [
        build_task(replace(repeated, run=replace(repeated.run, seed=seed)), data=few_scenes.coco, init=None)
        for seed in (0, 1, 2)
    ]
    passes = [[task.train_data.image_id(n) for n in range(len(task.train_data))] for task in tasks]
    assert passes[0] == passes[1] == passes[2] and len(passes[0]) > len({*passes[0]})
    assert {task.facts.train_images for task in tasks} == {len(passes[0])}


def test_every_parameter_is_in_one_group(task: DetectionTask, small_config: DetectionConfig) -> None:
    groups = task.param_groups(small_config.run.optim)
    assert sorted(n for g in groups for n in g.names) == sorted(n for n, _ in task.model.named_parameters())
    scale = {name: g.lr_scale for g in groups for name in g.names}
    assert scale["backbone.vit.pos_embed"] == pytest.approx(0.8**3)
    assert scale["backbone.vit.blocks.1.attn.qkv.weight"] == pytest.approx(0.8)
    assert scale["backbone.pyramid.simfp_2.0.weight"] == scale["roi_heads.box_predictor.cls_score.weight"] == 1


def test_results_are_plain_and_in_original_ids(task: DetectionTask) -> None:
    task.model.eval()
    with torch.no_grad():
        results = task.predict(task.collate([task.val_data[i] for i in range(2)]))
    assert [r.image_id for r in results] == [task.val_data.image_id(i) for i in range(2)]
    again = json.loads(json.dumps([r.values for r in results]))
    assert again == [r.values for r in results]
    for result in again:
        assert result["detections"]
        for found in result["detections"]:
            assert found["category_id"] in {1, 2, 4, 5, 7, 10, 11, 13}
            assert found["segmentation"]["size"] == [64, 64]
            assert rle.area(found["segmentation"]) <= 64 * 64
            assert len(found["bbox"]) == 4 and found["bbox"][2] > 0


def test_perfect_results_score_100_and_none_0(task: DetectionTask) -> None:
    metrics = task.score(perfect(task))
    assert {"box_ap", "box_ap50", "box_ap75", "mask_ap", "mask_ap50"} <= metrics.keys()
    metrics = {name: value for name, value in metrics.items() if not name.endswith("ar1")}  # one object per image
    assert metrics == pytest.approx(dict.fromkeys(metrics, 100.0)) and len(metrics) > 10
    assert set(task.score([]).values()) == {0.0}


def test_results_hold_what_ap_is_made_of(task: DetectionTask) -> None:
    """AP from the matches of the results alone equals the score, for detections that are partly right."""
    results = []
    for number, result in enumerate(perfect(task)):
        found = result.values["detections"]
        for place, item in enumerate(found):
            x, y, width, height = item["bbox"]
            item |= {"bbox": [x + place, y, width, height], "score": 0.9 - 0.1 * place - 0.01 * number}
        values = {"coco_image_id": result.values["coco_image_id"], "detections": found}
        results.append(ImageResult(result.image_id, values | task.truth.matches(values["coco_image_id"], found)))
    metrics = task.score(results)
    assert 0 < metrics["box_ap"] < 100
    for kind in ("box", "mask"):
        rows = json.loads(json.dumps([result.values[f"{kind}_matches"] for result in results]))
        assert ap_from_matches(rows, [1] * len(rows)) == pytest.approx(metrics[f"{kind}_ap"], abs=1e-9)


def test_files_beside_the_results(task: DetectionTask, tmp_path: Path) -> None:
    results = perfect(task)
    task.draw(results, tmp_path / "pictures")
    written = json.loads((tmp_path / "detections.json").read_text())
    assert len(written) == sum(len(result.values["detections"]) for result in results)
    assert written[0].keys() == {"image_id", "category_id", "bbox", "score", "segmentation"}
    header, *rows = (tmp_path / "per_class.csv").read_text().splitlines()
    assert header == "name,box_ap,mask_ap" and len(rows) == 8
    assert {row.split(",", 1)[1] for row in rows} <= {"100.0000,100.0000", ","}


def test_an_image_of_any_origin(task: DetectionTask, tmp_path: Path) -> None:
    path = tmp_path / "new.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 90, 3), np.uint8)).save(path)
    task.model.eval()
    trained = TrainedDetector(task.config, model=task.model, categories=task.val.categories, masks=task.masks)
    with torch.no_grad():
        values = json.loads(json.dumps(trained.predict_image(path)))
    assert (values["height"], values["width"]) == (40, 90) and values["detections"]
    for found in values["detections"]:
        assert found["segmentation"]["size"] == [40, 90] and isinstance(found["category"], str)
        x, y, width, height = found["bbox"]
        assert min(x, y) >= 0 and x + width <= 90.001 and y + height <= 40.001
    trained.draw_image(path, values, tmp_path / "out" / "new.png")
    assert Image.open(tmp_path / "out" / "new.png").size[0] > 200


def test_pictures_show_both_sides(task: DetectionTask, tmp_path: Path) -> None:
    paths = task.draw(perfect(task), tmp_path / "pictures")
    assert len(paths) == 7 and paths[-1].name == "precision.png"
    image = np.asarray(Image.open(paths[0]).convert("RGB")).astype(int)
    half = image.shape[1] // 2
    left, right = image[60:, :half], image[60:, half : 2 * half]
    # the labels differ by their scores, everything else is the same
    assert (np.abs(left - right).max(axis=2) > 40).mean() < 0.1


def test_boxes_alone(small_config: DetectionConfig, few_scenes: ScenesIndex, tmp_path: Path) -> None:
    paths = {}
    for split in ("train2017", "val2017"):
        content = json.loads((few_scenes.coco / "annotations" / f"instances_{split}.json").read_text())
        for annotation in content["annotations"]:
            del annotation["segmentation"]
        path = tmp_path / f"{split}.json"
        path.write_text(json.dumps(content))
        paths[split] = str(path)
    config = replace(small_config, train_json=paths["train2017"], val_json=paths["val2017"])
    task = build_task(config, data=few_scenes.coco, init=None)
    assert not task.masks and "boxes alone are trained and scored, without a mask head" in task.facts.data_notes[-1]
    record = fit(task, config, recipe="small", out=tmp_path / "run")
    assert record.status == "completed" and "loss_mask" not in record.losses
    assert "box_ap" in record.metrics and not [name for name in record.metrics if name.startswith("mask")]


def test_a_run_without_masks_in_training_is_evaluated_again(
    small_config: DetectionConfig, few_scenes: ScenesIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(few_scenes.coco, data)
    boxes = data / "annotations" / "instances_train2017.json"
    content = json.loads(boxes.read_text())
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    boxes.write_text(json.dumps(content))
    task = build_task(small_config, data=data, init=None)
    record = fit(task, small_config, recipe="small", out=tmp_path / "boxes")
    assert record.extra["masks"] is False
    again = reevaluate(tmp_path / "boxes", TASKS, Asked(), say=print)
    assert again.metrics == record.metrics and "box_ap" in again.metrics

    whole = replace(small_config, run=replace(small_config.run, length=Duration(1)))
    fit(build_task(whole, data=few_scenes.coco, init=None), whole, recipe="small", out=tmp_path / "masks")
    with pytest.raises(ValueError, match=f"{boxes}: has no `segmentation`, and the run was trained with masks"):
        reevaluate(tmp_path / "masks", TASKS, Asked(data=data, split="train2017"), say=print)


def test_weights_and_normalisation_come_from_the_checkpoint(
    small_config: DetectionConfig, few_scenes: ScenesIndex, tmp_path: Path
) -> None:
    vit = ViT(small_config.backbone)
    path = tmp_path / "backbone.safetensors"
    write_checkpoint(path, vit, source="mae", normalisation=Normalisation((0.5, 0.5, 0.5), (0.2, 0.2, 0.2)))
    task = build_task(small_config, data=few_scenes.coco, init=InitialWeights(path=path))
    loaded = task.model.backbone.vit
    assert torch.equal(loaded.blocks[1].mlp.fc1.weight, vit.blocks[1].mlp.fc1.weight)
    assert torch.equal(loaded.pos_embed, vit.pos_embed[:, 1:])
    assert task.model.pixel_std.flatten().tolist() == pytest.approx([51.0] * 3)
    assert task.facts.weights.source == "mae" and task.facts.weights.sha256
    other = replace(small_config, backbone=replace(small_config.backbone, depth=3))
    with pytest.raises(ValueError, match=r"depth 2 \(recipe: 3\)"):
        build_task(other, data=few_scenes.coco, init=InitialWeights(path=path))


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_survive_json(name: str) -> None:
    config = RECIPES[name]()
    assert from_json(DetectionConfig, json.loads(json.dumps(as_json(config)))) == config


class StoppedAt:
    """Training images that ask the run to stop when one of them is read, as Ctrl-C or a cluster would."""

    def __init__(self, data: Any, index: int) -> None:
        self.data, self.index, self.reads = data, index, 0

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        if self.reads == self.index:
            signal.raise_signal(signal.SIGTERM)
        return self.data[index]

    def image_id(self, index: int) -> str:
        return self.data.image_id(index)


def test_a_resumed_run_equals_an_uninterrupted_one(
    small_config: DetectionConfig, few_scenes: ScenesIndex, tmp_path: Path
) -> None:
    def build() -> DetectionTask:
        seed_all(0)
        return build_task(small_config, data=few_scenes.coco, init=None)

    whole = build()
    expected = fit(whole, small_config, recipe="small", out=tmp_path / "whole")
    first = build()
    first.train_data = StoppedAt(first.train_data, index=7)
    stopped = fit(first, small_config, recipe="small", out=tmp_path / "parts")
    assert stopped.status == "interrupted" and stopped.steps == 2
    second = build()
    record = fit(second, small_config, recipe="small", out=tmp_path / "parts", resume=True)
    assert record.status == "completed" and record.metrics == expected.metrics
    assert record.losses == expected.losses
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


def run_tool(few_scenes: ScenesIndex, out: Path, *flags: str) -> int:
    common = ["--data", str(few_scenes.coco), "--out", str(out), "--steps", "2", "--batch-size", "2"]
    return main(["tiny", *common, *flags])


def test_tool_trains_on_named_splits(few_scenes: ScenesIndex, tmp_path: Path) -> None:
    annotations = few_scenes.coco / "annotations" / "instances_test2017.json"
    flags = ["--train-split", "test2017", "--val-json", str(annotations), "--val-split", "test2017"]
    assert run_tool(few_scenes, tmp_path / "run", *flags) == 0
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert (record["train_split"], record["train_images"], record["val_images"]) == ("test2017", 2, 2)
    assert record["data_notes"] == ["training and validation use the same annotations"]
    assert {"box_ap", "box_ap50", "mask_ap", "mask_ap50"} <= record["metrics"].keys()
    assert len(record["pictures"]) == 4 and (tmp_path / "run" / record["pictures"][0]).is_file()


def test_tool_says_what_is_wrong(few_scenes: ScenesIndex, tmp_path: Path, capsys: Any) -> None:
    assert run_tool(few_scenes, tmp_path / "run", "--val-split", "val") == 1
    assert "error: " in (said := capsys.readouterr().err) and "instances_val.json: no such annotation file" in said
    assert main(["huge", "--data", ".", "--out", str(tmp_path / "x")]) == 1
    assert "no recipe is called 'huge'; there are: li2021_base, " in capsys.readouterr().err


def test_pictures_of_names_that_would_be_one_file(
    small_config: DetectionConfig, few_scenes: ScenesIndex, tmp_path: Path
) -> None:
    """`a/b.png`, `a_b.png`, `a/b.jpg`-like names and `precision.png` are files of their own among the pictures."""
    names = ["a/b.png", "a_b.png", "precision.png", "A_B.png"]
    content = json.loads((few_scenes.coco / "annotations" / "instances_val2017.json").read_text())
    data = tmp_path / "data"
    for image, name in zip(content["images"], names, strict=False):
        for split in ("train2017", "val2017"):
            (data / split / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(few_scenes.coco / "val2017" / image["file_name"], data / split / name)
        image["file_name"] = name
    content["images"] = content["images"][: len(names)]
    (data / "annotations").mkdir()
    for split in ("train2017", "val2017"):
        (data / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    task = build_task(small_config, data=data, init=None)
    ids = [task.val_data.image_id(index) for index in range(len(names))]
    numbers = {image["file_name"]: image["id"] for image in content["images"]}
    results = [ImageResult(i, {"coco_image_id": numbers[i], "detections": []}) for i in ids]
    pictures = task.draw(results, tmp_path / "out" / "pictures")
    assert len({path.name.casefold() for path in pictures}) == len(names) + 1 == len(list(pictures[0].parent.iterdir()))
    assert pictures[0].name == "a_b.png" and pictures[-1].name == "precision.png"


def test_a_validation_split_of_crowds(small_config: DetectionConfig, few_scenes: ScenesIndex, tmp_path: Path) -> None:
    content = json.loads((few_scenes.coco / "annotations" / "instances_val2017.json").read_text())
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 1
    path = tmp_path / "crowds.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"crowds\.json: each of its 12 annotations that can be used is a crowd"):
        build_task(replace(small_config, val_json=str(path)), data=few_scenes.coco, init=None)
