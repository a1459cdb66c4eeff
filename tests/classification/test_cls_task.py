"""Classification as a task: assembling, parameter groups, metrics by hand, pictures."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import pretraining.supervised
from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from backbones.weights.declaration import InitialWeights
from backbones.weights.normalisation import Normalisation
from classification.config import Augmentation, ClassificationConfig
from classification.recipes import RECIPES
from classification.task import ClassificationTask, build_task
from engine.images.reading import read_rgb
from engine.records.record import read_record
from engine.records.results_file import ImageResult
from tools import evaluate, train_cls


@pytest.fixture
def task(config: ClassificationConfig, data: Path) -> ClassificationTask:
    """Fine-tuning from random weights."""
    return build_task(config, data=data, init=None)


def test_facts(task: ClassificationTask, config: ClassificationConfig, data: Path) -> None:
    facts = task.facts
    assert (task.name, facts.train_images, facts.val_images, facts.data_notes) == (
        "classification",
        6,
        3,
        ("3 classes: ant, bee, cow",),
    )
    assert (facts.weights.source, facts.weights.sha256, facts.weights.lines()) == ("random", None, [])
    assert facts.architecture["embed_dim"] == 16
    assert facts.extra == {"classes": ["ant", "bee", "cow"]}
    # by hand, MACs: patches 16 * 192 * 16; a block 17 tokens * 12 * 16 ** 2 and attention 2 * 17 ** 2 * 16
    by_hand = 16 * 192 * 16 + 2 * (17 * 12 * 256 + 2 * 17 * 17 * 16)
    assert facts.flops_per_image == pytest.approx(by_hand, rel=0.05)  # fvcore counts the norms too
    (data / "train" / "notes.txt").touch()
    notes = build_task(config, data=data, init=None).facts.data_notes
    assert notes[1:] == ("train: 1 files that lie in no class folder left out",)


def test_predict_and_top_classes(task: ClassificationTask) -> None:
    batch = task.collate([task.val_data[i] for i in range(3)])
    assert (batch[0].shape, batch[1].tolist()) == ((3, 3, 32, 32), [0, 1, 2])
    task.model.eval()
    torch.nn.init.zeros_(task.model.head.weight)
    task.model.head.bias.data = torch.tensor([0.0, 2.0, 1.0]).log1p()  # 1 : 3 : 2
    with torch.no_grad():
        results = task.predict(batch)
    assert [r.image_id for r in results] == ["ant/0.png", "bee/0.png", "cow/0.png"]
    assert [r.values["top5"] for r in results] == [[1, 2, 0]] * 3  # three classes: a top 5 of three
    assert [r.values["label"] for r in results] == [0, 1, 2]
    assert [r.values["probability"] for r in results] == pytest.approx([0.5] * 3)


def test_score_by_hand(task: ClassificationTask) -> None:
    answers = [(0, [0, 1, 2, 3, 4]), (1, [0, 1, 2, 3, 4]), (9, [0, 1, 2, 3, 4]), (4, [0, 1, 2, 3, 4])]
    results = [
        ImageResult(str(i), {"label": label, "top5": top, "probability": 0.4}) for i, (label, top) in enumerate(answers)
    ]
    assert task.score(results) == pytest.approx({"top1": 25.0, "top5": 75.0, "ece": 15.0})
    assert task.primary_metric in task.score(results)
    with pytest.raises(ValueError, match="data: no image of split val could be evaluated"):
        task.score([])


def test_param_groups(task: ClassificationTask) -> None:
    groups = task.param_groups(task.config.run.optim)
    rule = {name: (group.lr_scale, group.weight_decay) for group in groups for name in group.names}
    assert set(rule) == {name for name, p in task.model.named_parameters() if p.requires_grad}
    # layer decay 0.5, two blocks
    assert rule["backbone.pos_embed"] == (0.125, 0.0)
    assert rule["backbone.patch_embed.proj.weight"] == (0.125, 0.05)
    assert rule["backbone.blocks.0.mlp.fc1.weight"] == (0.25, 0.05)
    assert rule["backbone.blocks.1.norm2.bias"] == (0.5, 0.0)
    assert rule["fc_norm.weight"] == (1.0, 0.0)
    assert rule["head.weight"] == (1.0, 0.05)


def test_fine_tuning_has_no_unused_norm(task: ClassificationTask, config: ClassificationConfig, data: Path) -> None:
    names = {name for name, _ in task.model.named_parameters()}
    assert {n for n in names if not n.startswith("backbone.")} == {
        "fc_norm.weight",
        "fc_norm.bias",
        "head.weight",
        "head.bias",
    }
    assert not any(name.startswith("backbone.norm.") for name in names)
    supervised = pretraining.supervised.build_task(config, data=data, init=None)
    extra = {name for name, _ in supervised.model.named_parameters()} - names
    assert extra == {"backbone.norm.weight", "backbone.norm.bias"}
    assert not supervised.model.backbone.pos_embed.requires_grad


def test_one_step_of_training_data(config: ClassificationConfig, data: Path) -> None:
    mixed = replace(config, augment=Augmentation(mixup=0.8, cutmix=1.0, erase=0.25, randaugment="rand-m9-mstd0.5"))
    for each in (config, mixed):
        task = build_task(each, data=data, init=None)
        assert (task.model.mixup is not None) == (each is mixed)
        loss = task.model(task.collate([task.train_data[i] for i in range(6)]))["cross_entropy"]
        # an untrained head of three classes is near log 3 = 1.10
        assert loss.item() == pytest.approx(1.0986, abs=0.3)


def test_normalisation_comes_with_the_checkpoint(config: ClassificationConfig, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    halves = Normalisation(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    write_checkpoint(path, ViT(config.backbone), source="mae", normalisation=halves)
    white = data / "val" / "ant" / "0.png"
    Image.new("RGB", (40, 40), (255, 255, 255)).save(white)
    task = build_task(config, data=data, init=InitialWeights(path=path))
    for normalised in (task.model.normalise(task.val_data[0][0]), task.val_data.view(read_rgb(white))):
        assert normalised.unique().tolist() == [1.0]  # (1 - 0.5) / 0.5
    task = build_task(config, data=data, init=None)
    assert task.model.normalise(task.val_data[0][0])[0].unique().tolist() == pytest.approx([(1 - 0.485) / 0.229])


def test_val_classes_must_be_those_of_train(config: ClassificationConfig, data: Path) -> None:
    (data / "val" / "dog").mkdir()
    with pytest.raises(ValueError, match=r"its class folders differ .*only in val \['dog'\]"):
        build_task(config, data=data, init=None)


def test_pictures(task: ClassificationTask, data: Path, tmp_path: Path) -> None:
    with torch.no_grad():
        results = task.predict(task.collate([task.val_data[i] for i in range(3)]))
    (data / "val" / "cow" / "0.png").write_bytes(b"")  # it became unreadable since
    pictures = task.draw(results, tmp_path / "pictures")
    for picture in pictures:
        with Image.open(picture) as image:
            assert image.format == "PNG"
    assert pictures == [tmp_path / "pictures" / name for name in ("predictions.png", "reliability.png")]


def test_recipe_of_mae_is_the_released_code() -> None:
    """FINETUNE.md of the official code: `--blr 5e-4 --layer_decay 0.65 --drop_path 0.1 ...`, batch 1,024."""
    config = RECIPES["mae_base"]()
    run, augment = config.run, config.augment
    assert (run.batch_size, run.length.value, run.length.unit) == (1024, 100, "epochs")
    assert run.optim.lr(1024) == pytest.approx(2e-3)
    assert run.optim.lr(1024) * run.schedule.final == pytest.approx(1e-6)
    assert (run.optim.layer_decay, run.optim.weight_decay, config.drop_path) == (0.65, 0.05, 0.1)
    assert (augment.mixup, augment.cutmix, augment.erase, augment.label_smoothing) == (0.8, 1.0, 0.25, 0.1)


def test_statistics_are_of_pretraining_alone(config: ClassificationConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"statistics: pre-training computes them \(tools/pretrain\.py --statistics\)"):
        build_task(replace(config, statistics=True), data=tmp_path, init=None)


def test_weights_without_a_class_token(config: ClassificationConfig, data: Path, tmp_path: Path) -> None:
    gap = ViT(config.backbone, class_token=False)
    write_checkpoint(tmp_path / "gap.safetensors", gap, source="timm")
    arguments = ["tiny", "--data", str(data), "--steps", "1", "--batch-size", "2", "--init-architecture", "file"]
    arguments += ["--init", str(tmp_path / "gap.safetensors"), "--out"]
    assert train_cls.main([*arguments, str(tmp_path / "run")]) == 0
    record = read_record(tmp_path / "run")
    assert record.config["class_token"] is False and record.metrics["top1"] >= 0
    assert evaluate.main([str(tmp_path / "run")]) == 0  # without the file, from the record
    assert train_cls.main([*arguments, str(tmp_path / "cls"), "--pooling", "class"]) == 1
    with pytest.raises(ValueError, match="reads the class token, and the ViT is built without one"):
        replace(config, pooling="class", class_token=False)
