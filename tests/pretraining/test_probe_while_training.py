"""Probes of the features while a ViT trains: their numbers, their cost, and that a run is the same with and without."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from classification.data import collate, eval_transform
from classification.probe.while_training import CROP, FeatureProbe
from engine.collapse import effective_rank, feature_spread
from engine.cost import count_flops
from engine.curves import read_series
from engine.device import make_fabric
from engine.records.record import read_record
from pretraining.mae import task as mae
from pretraining.recipes import RECIPES
from scenes.layouts import ScenesIndex
from tools import pretrain, train_cls

STEPS = ["--steps", "4", "--batch-size", "8", "--eval-every", "2", "--log-every", "1", "--device", "cpu"]


@pytest.fixture
def labelled(few_scenes: ScenesIndex, tmp_path: Path) -> Path:
    """Two images of two classes to train a probe on, and as many to judge it."""
    for split in ("train", "val"):
        for name in sorted(path.name for path in (few_scenes.imagenet / split).iterdir())[:2]:
            (tmp_path / "labelled" / split / name).mkdir(parents=True)
            for image in sorted((few_scenes.imagenet / split / name).iterdir())[:2]:
                shutil.copy(image, tmp_path / "labelled" / split / name)
    return tmp_path / "labelled"


@pytest.mark.parametrize(
    ("train", "recipe"),
    [
        (pretrain.main, "tiny"),
        pytest.param(pretrain.main, "tiny_moco_v3", marks=pytest.mark.sweep),
        (pretrain.main, "tiny_supervised"),
        pytest.param(train_cls.main, "tiny", marks=pytest.mark.sweep),
    ],
)
def test_a_run_is_the_same_with_and_without(
    train: Callable[[list[str]], int], recipe: str, few_scenes: ScenesIndex, labelled: Path, tmp_path: Path
) -> None:
    flags = [recipe, "--data", str(few_scenes.imagenet), *STEPS]
    assert train([*flags, "--out", str(tmp_path / "without")]) == 0
    assert train([*flags, "--out", str(tmp_path / "with"), "--probe-data", str(labelled)]) == 0
    without, found = read_record(tmp_path / "without"), read_record(tmp_path / "with")
    names = {"probe_knn", "probe_linear", "probe_rank", "probe_spread"}
    assert found.metrics.keys() == without.metrics.keys() | names
    assert without.metrics == {name: value for name, value in found.metrics.items() if name not in names}
    assert found.losses == without.losses and found.departures == without.departures
    states = [load_file(tmp_path / run / "backbone.safetensors") for run in ("without", "with")]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert read_series(tmp_path / "with" / "metrics.csv")["val/probe_knn"][0] == [2, 4]
    assert any(
        "features are probed at every evaluation on 4 + 4 images (2 classes)" in note for note in found.data_notes
    )


def probe_of(few_scenes: ScenesIndex, labelled: Path, **changes: object) -> tuple[FeatureProbe, mae.MAETask]:
    config = RECIPES["tiny"]()
    config = replace(config, probe_data=str(labelled), run=replace(config.run, batch_size=8), **changes)
    task = mae.build_task(config, data=few_scenes.imagenet, init=None)
    assert task.probe is not None
    return task.probe, task


def test_what_is_probed(few_scenes: ScenesIndex, labelled: Path) -> None:
    probe, task = probe_of(few_scenes, labelled)
    fabric = make_fabric("32-true", device="cpu")
    task.model.train()
    state = torch.get_rng_state()
    found = probe(fabric)
    assert task.model.encoder.training and torch.equal(state, torch.get_rng_state())
    pixels, _ = collate([probe.val[i] for i in range(4)])
    view = eval_transform((64, 64), CROP, task.normalisation)
    with torch.no_grad():
        feature = task.model.encoder.eval()(view.normalise(pixels))[:, 1:].mean(dim=1)
    assert found["probe_rank"] == pytest.approx(float(effective_rank(feature)), rel=1e-5)
    assert found["probe_spread"] == pytest.approx(float(feature_spread(feature)), rel=1e-5)
    assert found["probe_knn"] in (0, 25, 50, 75, 100) and found["probe_linear"] in (0, 25, 50, 75, 100)
    (probe.val.path(0)).write_bytes(b"")
    assert probe(fabric)["probe_unreadable"] == 1


def test_its_cost_and_how_often(few_scenes: ScenesIndex, labelled: Path) -> None:
    """By hand: 8 images forward through the encoder, and the validation images through the whole; a step is 3 x 8."""
    probe, task = probe_of(few_scenes, labelled)
    encoder = count_flops(task.model.encoder, torch.zeros(1, 3, 64, 64))
    whole = task.facts.flops_per_image
    assert whole is not None
    assert probe.cost == pytest.approx((8 * encoder + len(task.val_data) * whole) / (24 * whole))
    dear = replace(probe, cost=3.0)
    assert (dear.every(50), dear.every(1000), dear.every(100_000)) == (50, 100, 5_000)  # 3 steps are 3 % of 100


def test_a_share_of_every_class(few_scenes: ScenesIndex, labelled: Path) -> None:
    probe, _ = probe_of(few_scenes, labelled, probe_images=2)
    assert [label for _, label in probe.train.folder.samples] == [0, 1]


def test_what_is_refused(
    few_scenes: ScenesIndex, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["tiny", "--data", str(few_scenes.imagenet), *STEPS, "--out", str(tmp_path / "run")]
    assert pretrain.main([*flags, "--probe-data", str(tmp_path / "gone")]) == 1
    assert "gone: looked for train/<class>/<image>" in capsys.readouterr().err
    assert pretrain.main([*flags, "--probe-data", str(labelled), "--probe-images", "0"]) == 1
    assert "probe_images is 0; it must be at least 1" in capsys.readouterr().err
    for path in (labelled / "val").rglob("*.*"):
        path.write_bytes(b"")
    assert pretrain.main([*flags, "--probe-data", str(labelled)]) == 1
    assert "val: none of its 4 images can be read" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
