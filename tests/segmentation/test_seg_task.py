"""The adapter, the model and the task: shapes, gradients, colours, precision, results."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.config import ViTConfig
from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from backbones.weights.declaration import InitialWeights
from backbones.weights.initial import with_architecture
from backbones.weights.normalisation import Normalisation
from engine.config import Duration, as_json
from engine.runs.predict import Predicts
from engine.training.seeding import seed_all
from files.typed import from_json
from segmentation.config import SegmentationConfig, SlideConfig
from segmentation.evaluation.predictions import as_values, from_values
from segmentation.host import MODELS
from segmentation.model.backbone import MAETransferViT
from segmentation.recipes import RECIPES
from segmentation.task import SegmentationTask, build_task
from segmentation.trained import Labels, TrainedSegmentor
from tools.train_seg import main


@pytest.fixture
def task(config: SegmentationConfig, write_folder) -> SegmentationTask:
    """The tiny task with seeded weights."""
    seed_all(0)
    return build_task(config, data=write_folder(), init=None)


def train_batch(task: SegmentationTask, count: int = 2) -> dict:
    """The first training samples, always augmented the same way."""
    seed_all(1)
    return task.collate([task.train_data[i] for i in range(count)])


def test_adapter_gives_one_map_per_block(config: SegmentationConfig) -> None:
    adapter = MODELS.build(
        {"type": "MAETransferViT", "architecture": as_json(config.backbone), "out_indices": [0, 1, 2, 3]}
    )
    assert isinstance(adapter, MAETransferViT)
    image = torch.randn(2, 3, 24, 40)
    maps = adapter(image)
    assert [tuple(m.shape) for m in maps] == [(2, 16, 3, 5)] * 4
    # the last map is the residual stream that the plain ViT gives, without its class token
    tokens = adapter.vit(image)[:, 1:]
    torch.testing.assert_close(maps[-1].flatten(2).transpose(1, 2), tokens)


def test_adapter_loads_a_checkpoint(config: SegmentationConfig, tmp_path: Path) -> None:
    vit = ViT(config.backbone, final_norm=True)
    write_checkpoint(tmp_path / "b.safetensors", vit, source="mae")
    adapter = MAETransferViT(as_json(config.backbone), out_indices=[0, 1, 2, 3], init=str(tmp_path / "b.safetensors"))
    torch.testing.assert_close(adapter.vit.state_dict()["blocks.3.mlp.fc2.weight"], vit.blocks[3].mlp.fc2.weight.data)


def test_taps_must_end_with_the_last_block(config: SegmentationConfig) -> None:
    with pytest.raises(ValueError, match=r"out_indices \[0, 1, 2\] must end with the last block, 3"):
        MAETransferViT(as_json(config.backbone), out_indices=[0, 1, 2])


def test_every_parameter_gets_a_gradient(task: SegmentationTask) -> None:
    task.model.train()
    losses = task.model(train_batch(task))
    assert sorted(losses) == ["aux.loss_ce", "decode.loss_ce"]
    sum(losses.values()).backward()
    assert [name for name, p in task.model.named_parameters() if p.grad is None] == []
    cls_token = task.model.backbone.vit.cls_token
    assert cls_token is not None and cls_token.grad is not None and cls_token.grad.abs().max() > 0


def test_every_parameter_is_in_one_group(task: SegmentationTask, config: SegmentationConfig) -> None:
    groups = task.param_groups(replace(config.run.optim, layer_decay=0.5))
    names = [name for group in groups for name in group.names]
    assert sorted(names) == sorted(name for name, _ in task.model.named_parameters())
    scales = {group.layer: group.lr_scale for group in groups}
    assert scales == {layer: 0.5 ** (5 - layer) for layer in range(6)}


def test_vit_sees_normalised_rgb(config: SegmentationConfig, write_folder, tmp_path: Path) -> None:
    folder = write_folder()
    Image.new("RGB", (40, 32), (10, 20, 30)).save(folder / "images" / "validation" / "0.png")
    (folder / "images" / "validation" / "0.jpg").unlink()
    constants = Normalisation(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2))
    path = tmp_path / "vit.safetensors"
    write_checkpoint(path, ViT(config.backbone, final_norm=False), source="mae", normalisation=constants)
    task = build_task(config, data=folder, init=InitialWeights(path=path))
    seen = []
    task.model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    task.model.eval()
    task.predict(task.collate([task.val_data[0]]))
    expected = [(10 / 255 - 0.1) / 0.5, (20 / 255 - 0.2) / 0.25, (30 / 255 - 0.3) / 0.2]
    torch.testing.assert_close(seen[0][0, :, 0, 0], torch.tensor(expected))
    assert task.facts.weights.source == "mae"
    assert task.facts.weights.sha256


def test_position_table_follows_the_crop(config: SegmentationConfig, write_folder, tmp_path: Path) -> None:
    path = tmp_path / "vit.safetensors"
    write_checkpoint(path, ViT(config.backbone.at(48, 48), final_norm=True), source="mae")
    task = build_task(config, data=write_folder(), init=InitialWeights(path=path))
    assert task.model.backbone.vit.pos_embed.shape == (1, 17, 16)
    assert any("resized pos_embed" in line for line in task.facts.weights.lines())


def test_ignored_batch_has_no_loss(task: SegmentationTask) -> None:
    batch = train_batch(task)
    for sample in batch["data_samples"]:
        sample.gt_sem_seg.data.fill_(255)
    losses = task.model(batch)
    assert {name: float(value.detach()) for name, value in losses.items()} == {
        "decode.loss_ce": 0.0,
        "aux.loss_ce": 0.0,
    }
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in task.model.parameters())


@pytest.mark.parametrize("slide", [None, SlideConfig(stride=16)])
@pytest.mark.parametrize("size", [(1, 1), (61, 1), (5, 9)])
def test_images_smaller_than_the_crop_train_and_are_predicted(config, write_folder, slide, size) -> None:
    folder = write_folder()
    for split in ("training", "validation"):
        (folder / "images" / split / "0.jpg").unlink()
        Image.new("RGB", size, (90, 10, 10)).save(folder / "images" / split / "0.png")
        Image.new("L", size, 1).save(folder / "annotations" / split / "0.png")
    seed_all(0)
    vit = replace(config.backbone, relative_position="table")  # resampled to the grid of a small window
    task = build_task(replace(config, backbone=vit, slide=slide), data=folder, init=None)
    batch = train_batch(task)
    losses = task.model(batch)
    sum(losses.values()).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in task.model.parameters())
    task.model.eval()
    with torch.no_grad():
        found = task.model.predict(task.collate([task.val_data[i] for i in range(2)]))
    assert [tuple(classes.shape) for classes in found] == [size[::-1], (32, 40)]


def test_an_ignored_image_beside_a_labelled_one(task: SegmentationTask) -> None:
    batch = train_batch(task)
    batch["data_samples"][0].gt_sem_seg.data.fill_(255)
    losses = task.model(batch)
    sum(losses.values()).backward()
    assert all(value > 0 and torch.isfinite(value) for value in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in task.model.parameters())


def test_losses_are_float32_under_autocast(task: SegmentationTask) -> None:
    batch = train_batch(task)
    seed_all(1)
    plain = task.model(copy.deepcopy(batch))
    seed_all(1)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = task.model(copy.deepcopy(batch))
    for name, value in mixed.items():
        assert value.dtype == torch.float32
        # bfloat16 activations have three digits
        assert float(value.detach()) == pytest.approx(float(plain[name].detach()), rel=0.02)
    task.model.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert task.predict(task.collate([task.val_data[0]]))[0].values["confusion"]


def test_results_give_the_metrics_again(task: SegmentationTask) -> None:
    task.model.eval()
    with torch.no_grad():
        results = task.predict(task.collate([task.val_data[i] for i in range(3)]))
    assert [result.image_id for result in results] == ["0.jpg", "1.jpg", "2.jpg"]
    # 32 x 40 pixels without the two ignored rows
    assert [sum(count for *_, count in result.values["confusion"]) for result in results] == [1200] * 3
    again = [replace(result, values=json.loads(json.dumps(result.values))) for result in results]
    metrics = task.score(results)
    assert sorted(metrics) == ["aacc", "macc", "miou"]
    assert task.score(again) == metrics
    with pytest.raises(ValueError, match="no image of split validation could be evaluated"):
        task.score([])


def test_an_image_without_labels_changes_no_metric(task: SegmentationTask) -> None:
    task.model.eval()
    samples = [task.val_data[i] for i in range(3)]
    samples[1]["data_samples"].gt_sem_seg.data.fill_(255)
    with torch.no_grad():
        results = task.predict(task.collate(samples))
    assert results[1].values == {"confusion": []}
    assert task.score(results) == task.score([results[0], results[2]])
    with pytest.raises(ValueError, match="no pixel of the validation images is labelled"):
        task.score([results[1]])


def test_boundary_iou_is_an_option(config: SegmentationConfig, write_folder, tmp_path: Path) -> None:
    seed_all(0)
    task = build_task(replace(config, boundary_iou=True), data=write_folder(), init=None)
    task.model.eval()
    with torch.no_grad():
        results = task.predict(task.collate([task.val_data[i] for i in range(3)]))
    metrics = task.score(results)
    assert sorted(metrics) == ["aacc", "boundary_miou", "macc", "miou"]
    assert metrics["boundary_miou"] != metrics["miou"]
    # the class that stands for no boundary takes part in no mean
    assert 0 <= metrics["boundary_miou"] <= 100
    paths = task.draw(results, tmp_path / "out" / "pictures")
    assert [path.name for path in paths] == ["predictions.png", "confusion.png"]
    rows = (tmp_path / "out" / "per_class.csv").read_text().splitlines()
    assert rows[0] == "class,name,iou,acc,boundary_iou,labelled,predicted,hit"
    assert [row.split(",")[:2] for row in rows[1:]] == [["0", "left"], ["1", "dark"], ["2", "bright"]]
    ious = [float(row.split(",")[2]) for row in rows[1:] if row.split(",")[2]]
    assert np.mean(ious) == pytest.approx(metrics["miou"], abs=1e-4)


def trained_of(task: SegmentationTask) -> TrainedSegmentor:
    labels = Labels(**{name: tuple(values) for name, values in task.facts.labels.items()})
    return TrainedSegmentor(task.config, model=task.model, classes=task.classes, labels=labels)


def test_prediction_of_an_image_without_labels(config: SegmentationConfig, write_folder, tmp_path: Path) -> None:
    seed_all(0)
    task = build_task(config, data=write_folder(), init=None)
    trained = trained_of(task)
    assert isinstance(trained, Predicts)
    task.model.eval()
    torch.nn.init.normal_(task.model.segmentor.decode_head.conv_seg.weight)
    path = tmp_path / "photo.png"
    noise = np.random.default_rng(0).integers(0, 255, (37, 51, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    with torch.no_grad():
        values = json.loads(json.dumps(trained.predict_image(path)))
    assert sum(found["pixels"] for found in values["classes"]) == 37 * 51
    assert {found["name"] for found in values["classes"]} <= {"left", "dark", "bright"}
    trained.draw_image(path, values, tmp_path / "out" / "photo.png")
    index = Image.open(tmp_path / "out" / "photo_labels.png")
    numbers = np.asarray(index)
    assert index.mode == "P" and numbers.shape == (37, 51)
    for found in values["classes"]:  # 1 to 3, as in the label maps that it was trained on
        assert (numbers == found["class"] + 1).sum() == found["pixels"]
    first = values["classes"][0]["class"]
    place = tuple(np.argwhere(numbers == first + 1)[0])
    assert np.asarray(index.convert("RGB"))[place].tolist() == task.val_data.palette[first].tolist()
    assert np.asarray(Image.open(tmp_path / "out" / "photo.png").convert("L")).std() > 10


def test_answer_as_values_and_back() -> None:
    class_HW = np.random.default_rng(0).integers(0, 5, (9, 7)).astype(np.uint8)
    values = json.loads(json.dumps(as_values(class_HW, list("abcdefg"))))
    np.testing.assert_array_equal(from_values(values), class_HW)
    pixels = [found["pixels"] for found in values["classes"]]
    assert pixels == sorted(pixels, reverse=True) and sum(pixels) == 63


@pytest.mark.parametrize("slide", [None, SlideConfig(stride=16)])
def test_an_image_that_is_seen_whole_says_what_it_takes(
    config: SegmentationConfig, write_folder, tmp_path: Path, monkeypatch, capsys, slide
) -> None:
    task = build_task(replace(config, slide=slide), data=write_folder(), init=None)
    task.model.eval()
    trained = trained_of(task)
    Image.new("RGB", (90, 30), (0, 0, 255)).save(tmp_path / "a.png")
    with torch.no_grad():
        trained.predict_image(tmp_path / "a.png")
        assert capsys.readouterr().err == ""
        monkeypatch.setattr("segmentation.trained.WHOLE_SAID_FROM", 1)
        trained.predict_image(tmp_path / "a.png")
    said = capsys.readouterr().err
    assert (f"{tmp_path / 'a.png'}: seen whole at " in said and "(`slide`)" in said) == (slide is None)


def test_images_of_different_sizes_in_a_batch(config: SegmentationConfig, write_folder) -> None:
    folder = write_folder()
    Image.new("RGB", (33, 57), (90, 10, 10)).save(folder / "images" / "validation" / "1.jpg")
    Image.new("L", (33, 57), 1).save(folder / "annotations" / "validation" / "1.png")
    seed_all(0)
    task = build_task(config, data=folder, init=None)
    task.model.eval()
    samples = [task.val_data[i] for i in range(3)]
    with torch.no_grad():
        together = task.model.predict(task.collate(samples))
        alone = [task.model.predict(task.collate([sample]))[0] for sample in samples]
    assert [tuple(p.shape) for p in together] == [(32, 40), (57, 33), (32, 40)]
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))


def test_slide_of_one_window_equals_the_whole(config: SegmentationConfig, write_folder) -> None:
    folder = write_folder()
    square = replace(config, resize=(32, 32))  # 40 x 32 pixels become 32 x 26, padded to 32 x 32
    predictions = []
    for slide in (None, SlideConfig(stride=16)):
        seed_all(0)
        task = build_task(replace(square, slide=slide), data=folder, init=None)
        task.model.eval()
        with torch.no_grad():
            predictions.append(task.model.predict(task.collate([task.val_data[0]]))[0])
    assert torch.equal(*predictions)
    wide = build_task(replace(config, slide=SlideConfig(stride=16)), data=folder, init=None)
    wide.model.eval()
    with torch.no_grad():
        assert wide.model.predict(wide.collate([wide.val_data[0]]))[0].shape == (32, 40)


def test_batch_norm_needs_two_images(config: SegmentationConfig, write_folder) -> None:
    run = replace(config.run, batch_size=2, accumulate=2)
    with pytest.raises(ValueError, match=r"batch_size 2 over 1 process\(es\) and 2 micro-batches leaves 1 image"):
        build_task(replace(config, run=run), data=write_folder(), init=None)


def test_recipes_survive_their_record() -> None:
    for make in RECIPES.values():
        config = make()
        assert from_json(SegmentationConfig, json.loads(json.dumps(as_json(config)))) == config
        assert config.out_indices[-1] == config.backbone.depth - 1
        assert len(make.__doc__ or "") > 80


def test_tool_trains_evaluates_and_draws(config: SegmentationConfig, write_folder, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setitem(RECIPES, "tiny", lambda: config)
    out = tmp_path / "run"
    assert main(["tiny", "--data", str(write_folder()), "--out", str(out), "--steps", "2", "--seed", "3"]) == 0
    record = json.loads((out / "record.json").read_text())
    assert (record["task"], record["status"], record["steps"], record["seed"]) == (
        "segmentation",
        "completed",
        2,
        3,
    )
    assert sorted(record["metrics"]) == ["aacc", "macc", "miou"]
    assert sorted(record["losses"]) == ["aux.loss_ce", "decode.loss_ce", "loss"]
    assert record["cost"]["flops_per_image"] > 0
    assert record["extra"]["classes"] == ["left", "dark", "bright"]
    picture = np.asarray(Image.open(out / record["pictures"][0]))
    assert picture.std() > 10


def test_tool_says_what_is_wrong(tmp_path: Path, capsys) -> None:
    assert main(["huge", "--data", str(tmp_path), "--out", str(tmp_path / "run")]) == 1
    assert "error: no recipe is called 'huge'; there are: beit_base_100ep, " in capsys.readouterr().err
    assert main(["tiny", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "run")]) == 1
    assert "none: no such folder; --data is the folder of the data set." in capsys.readouterr().err
    (tmp_path / "none").mkdir()
    assert main(["tiny", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "run")]) == 1
    assert "looked for images/training" in capsys.readouterr().err


def test_training_learns_the_halves(config: SegmentationConfig, write_folder, tmp_path: Path) -> None:
    from engine.training.loop import fit

    run = replace(config.run, length=Duration(100), batch_size=4)
    config = replace(config, run=replace(run, optim=replace(run.optim, base_lr=3e-3, base_batch_size=4)))
    seed_all(0)
    record = fit(build_task(config, data=write_folder(), init=None), config, recipe="t", out=tmp_path / "run")
    # half of the labelled pixels are class 1, so the best constant answer has an aAcc of 50
    assert record.metrics["aacc"] > 60


def test_architecture_of_another_checkpoint(config: SegmentationConfig, write_folder, tmp_path: Path) -> None:
    other = ViTConfig(embed_dim=32, depth=4, num_heads=2, patch_size=8, image_size=(32, 32))
    write_checkpoint(tmp_path / "other.safetensors", ViT(other), source="mae")
    with pytest.raises(ValueError, match="embed_dim 32"):
        build_task(config, data=write_folder(), init=InitialWeights(path=tmp_path / "other.safetensors"))


def test_weights_without_a_class_token(config: SegmentationConfig, write_folder, tmp_path: Path) -> None:
    gap = ViT(config.backbone, class_token=False)
    write_checkpoint(tmp_path / "gap.safetensors", gap, source="timm")
    init = InitialWeights(path=tmp_path / "gap.safetensors")
    built = build_task(with_architecture(config, init), data=write_folder(), init=init)
    assert built.model.backbone.vit.cls_token is None
    assert sum(built.model(train_batch(built)).values()) > 0
    taken = built.model.backbone.vit.state_dict()["pos_embed"]
    torch.testing.assert_close(taken, gap.state_dict()["pos_embed"])
