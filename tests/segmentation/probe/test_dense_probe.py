"""Dense probes from images to records: patches, cached features, pixels, mmseg's mIoU, the tool."""

import csv
import json
import sys
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from backbones.weights.declaration import InitialWeights
from engine.records.record import read_record
from engine.records.results_file import read_results
from metrics.miou import add_up, resampler
from scenes.layouts import ScenesIndex
from segmentation.data.layout import open_folder
from segmentation.probe.config import DenseProbeConfig
from segmentation.probe.patches import last_tokens, patch_counts, split_images
from segmentation.probe.readout import PatchScores
from segmentation.probe.run import predict_pixels, run_dense_probes
from segmentation.spec import KNN_SEGMENTATION
from tests.segmentation.probe.dense_samples import TINY
from tools import probe_dense

SMALL = DenseProbeConfig(backbone=TINY, memory=200, linear_iterations=5)


def probe_of(data: Path, out: Path, config: DenseProbeConfig = SMALL, **given: object) -> list[str]:
    said: list[str] = []
    options: dict = {"init": None, "cache": out.parent / "cache", **given}
    run_dense_probes(config, data=data, out=out, say=said.append, **options)
    return said


@pytest.fixture
def scenes(few_scenes: ScenesIndex, tmp_path: Path) -> Path:
    return copytree(few_scenes.ade20k, tmp_path / "ade20k")


def test_patches_count_the_pixels_that_lie_in_them() -> None:
    rng = np.random.default_rng(0)
    label = rng.choice([0, 1, 2, 255], (37, 50)).astype(np.uint8)
    made = patch_counts(label, (4, 6), 3)
    assert made.sum() == (label != 255).sum()
    expected = np.zeros((24, 3), dtype=int)
    for y, x in np.ndindex(37, 50):
        if label[y, x] != 255:
            expected[y * 4 // 37 * 6 + x * 6 // 50, label[y, x]] += 1
    assert np.array_equal(made, expected)
    assert patch_counts(label[:2], (4, 6), 3).sum(axis=1).reshape(4, 6)[1].sum() == 0  # fewer rows than patches


def test_tokens_of_the_last_blocks() -> None:
    vit, image = ViT(TINY).eval(), torch.randn(2, 3, 48, 64)  # another size than the ViT is made for
    with torch.no_grad():
        one, two = last_tokens(vit, image, 1), last_tokens(vit, image, 2)
        assert torch.equal(one, vit(image)[:, 1:]) and one.shape == (2, 6 * 8, 16)
        assert two.shape == (2, 48, 32) and torch.equal(two[:, :, 16:], one)


def test_samples(scenes: Path) -> None:
    folder = open_folder(scenes)
    sample = split_images(SMALL, folder.train, folder.classes)[0]
    assert sample["pixels"].shape == (3, 32, 48) and sample["pixels"].dtype == torch.uint8
    red = np.asarray(Image.open(folder.train.pairs[0].image).convert("RGB").resize((48, 32), Image.Resampling.BICUBIC))
    assert np.array_equal(sample["pixels"].numpy(), red.transpose(2, 0, 1))
    assert sample["share"].shape == (24, len(folder.classes.names)) and sample["index"] == 0


def test_pixels_by_bilinear_scores() -> None:
    torch.manual_seed(0)
    score, classes = torch.randn(6, 20), torch.arange(0, 40, 2)
    made = predict_pixels(PatchScores(score, classes), (2, 3), (13, 17))
    large = torch.nn.functional.interpolate(score.T.reshape(1, 20, 2, 3), size=(13, 17), mode="bilinear")
    assert torch.equal(made, classes[large[0].argmax(dim=0)].to(torch.uint8))


def test_records(scenes: Path, tmp_path: Path) -> None:
    from mmseg.evaluation import IoUMetric

    write_checkpoint(tmp_path / "b.safetensors", ViT(TINY), source="mae")
    out, init = tmp_path / "out", InitialWeights(path=tmp_path / "b.safetensors")
    said = probe_of(scenes, out, init=init)
    near, linear = (read_record(out / name) for name in ("knn_segmentation", "linear_segmentation"))
    assert (near.task, linear.task, near.weights_source) == ("knn_segmentation", "linear_segmentation", "mae")
    assert near.metrics["miou"] == near.metrics["standardised_k30"] and near.config["leading"] == "standardised_k30"
    assert linear.metrics["miou"] == linear.metrics["standardised"] and near.run_id != linear.run_id
    kinds = ("raw", "standardised", "position_regressed")
    without = {"miou", "macc", "aacc", "class_prior", "mean_label_map"}
    ks = (1, 3, 10, 30)
    assert {*near.metrics} == without | {f"{kind}_k{k}" for kind in (*kinds, "position") for k in ks}
    assert {*linear.metrics} == without | {*kinds, "position"}
    assert any("memory: 200 of 288 training patches" in note for note in near.data_notes)
    assert sum("  leads" in line for line in said) == 2
    classes = len(near.extra["classes"])
    for record, name in ((near, "knn_segmentation"), (linear, "linear_segmentation")):
        results = read_results(out / name / "results.jsonl")
        total = add_up((result.values["confusion"] for result in results), classes)
        areas = [torch.tensor(x) for x in (total.diagonal(), total.sum(0) + total.sum(1) - total.diagonal(),
                                               total.sum(0), total.sum(1))]  # fmt: skip
        host = IoUMetric.total_area_to_metrics(*(area.double() for area in areas), ["mIoU"])
        assert record.metrics["miou"] == pytest.approx(100 * np.nanmean(host["IoU"]), abs=1e-9)
        with (out / name / "per_class.csv").open(newline="") as file:
            assert len([*csv.DictReader(file)]) == classes and "per_class.csv" in record.files_sha256
    with pytest.raises(ValueError, match="knn_segmentation: holds a probe already; give another --out"):
        probe_of(scenes, out, init=init)


def test_the_class_prior_and_the_mean_label_map(scenes: Path, tmp_path: Path) -> None:
    probe_of(scenes, tmp_path / "out")
    folder = open_folder(scenes)
    classes = len(folder.classes.names)
    table = np.array(folder.train.label_mapping.table)
    maps = {split.name: [table[np.array(Image.open(pair.labels))] for pair in split.pairs]
            for split in (folder.train, folder.val)}  # fmt: skip
    counts = sum(np.bincount(label[label != 255], minlength=classes) for label in maps["training"])
    most = int(np.argmax(counts))
    labels = np.concatenate([label[label != 255] for label in maps["validation"]])
    present = len({*labels.tolist()} | {most})
    expected = 100 * (labels == most).mean() / present  # IoU of one class, zeros of the others
    metrics = read_record(tmp_path / "out" / "knn_segmentation").metrics
    assert metrics["class_prior"] == pytest.approx(expected)
    assert metrics["mean_label_map"] > metrics["class_prior"]


def test_a_second_run_takes_the_features_of_the_first(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe_of(scenes, tmp_path / "one")

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("extracted again")

    with monkeypatch.context() as patched:
        patched.setattr("segmentation.probe.patches._extract", refused)
        probe_of(scenes, tmp_path / "two")
    one, two = (read_record(tmp_path / name / "knn_segmentation") for name in ("one", "two"))
    assert one.metrics == two.metrics and one.run_id == two.run_id
    label = next((scenes / "annotations" / "training").iterdir())
    Image.open(label).save(label)  # another time of change
    with monkeypatch.context() as patched, pytest.raises(AssertionError, match="extracted again"):
        patched.setattr("segmentation.probe.patches._extract", refused)
        probe_of(scenes, tmp_path / "three")


@pytest.mark.parametrize("kind", ["images", "annotations"])
def test_unreadable_images_are_counted(scenes: Path, tmp_path: Path, kind: str) -> None:
    for split in ("training", "validation"):
        sorted((scenes / kind / split).iterdir())[1].write_bytes(b"no image")
    probe_of(scenes, tmp_path / "out")
    record = read_record(tmp_path / "out" / "knn_segmentation")
    assert len(record.unreadable_images) == 2 and all("unreadable" in line for line in record.unreadable_images)
    assert len(read_results(tmp_path / "out" / "knn_segmentation" / "results.jsonl")) == 5


def test_weights_without_class_token_and_final_norm(scenes: Path, tmp_path: Path) -> None:
    vit = ViT(TINY, class_token=False, final_norm=False)
    write_checkpoint(tmp_path / "b.safetensors", vit, source="mae")
    probe_of(scenes, tmp_path / "out", init=InitialWeights(path=tmp_path / "b.safetensors"))
    record = read_record(tmp_path / "out" / "knn_segmentation")
    assert any(note.startswith("the weights have no final norm") for note in record.data_notes)


def test_classes_that_the_memory_lacks(scenes: Path, tmp_path: Path) -> None:
    probe_of(scenes, tmp_path / "out", DenseProbeConfig(backbone=TINY, memory=4, linear_iterations=2, seed=1))
    for task in ("knn_segmentation", "linear_segmentation"):
        record = read_record(tmp_path / "out" / task)
        assert all(0 <= value <= 100 for value in record.metrics.values())
        assert any("classes are in none and are never predicted" in note for note in record.data_notes)


def test_label_maps_of_another_size_and_without_a_label(scenes: Path, tmp_path: Path) -> None:
    maps = sorted((scenes / "annotations" / "validation").iterdir())
    whole = [path.read_bytes() for path in maps]
    for path in maps:
        Image.fromarray(np.zeros_like(np.array(Image.open(path)))).save(path)
    with pytest.raises(ValueError, match="validation"):
        probe_of(scenes, tmp_path / "out")
    for path, content in zip(maps, whole, strict=True):
        path.write_bytes(content)
    Image.new("L", (5, 4), 1).save(maps[0])
    with pytest.raises(ValueError, match=f"{maps[0].name}: the label map is 5 x 4 pixels, its image"):
        probe_of(scenes, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_part_of_the_images(scenes: Path, tmp_path: Path) -> None:
    config = DenseProbeConfig(backbone=TINY, memory=1000, linear_iterations=2, label_fraction=0.25)
    probe_of(scenes, tmp_path / "out", config)
    record = read_record(tmp_path / "out" / "linear_segmentation")
    assert record.train_images == 3 and any("3 of 12 images used" in note for note in record.data_notes)
    assert any("all of them (1000 were asked for)" in note for note in record.data_notes)


def test_intervals_over_images(scenes: Path, tmp_path: Path) -> None:
    probe_of(scenes, tmp_path / "out")
    record = read_record(tmp_path / "out" / "knn_segmentation")
    lines = [result.values for result in read_results(tmp_path / "out" / "knn_segmentation" / "results.jsonl")]
    assert KNN_SEGMENTATION.scores[0].resampler is resampler
    made = resampler(lines)(np.ones((1, 6), dtype=np.int64))
    assert made["miou"][0] == pytest.approx(record.metrics["miou"])


def test_a_search_that_is_not_installed_is_refused_first(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    flags = ["vit_demo_patch8", "--data", str(scenes), "--out", str(tmp_path / "out"), "--search", "faiss"]
    assert probe_dense.main(flags) == 1
    assert "--search exact finds the same" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_images_are_read_out_together_or_one_by_one(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe_of(scenes, tmp_path / "together")
    monkeypatch.setattr("segmentation.probe.run.PATCHES_AT_ONCE", 1)
    monkeypatch.setattr("segmentation.probe.search.MEMORY_AT_ONCE", 13)
    probe_of(scenes, tmp_path / "one_by_one")
    for task in ("knn_segmentation", "linear_segmentation"):
        together, single = (read_record(tmp_path / name / task) for name in ("together", "one_by_one"))
        for name, value in together.metrics.items():  # rounding may turn a pixel; positions are equally near
            assert single.metrics[name] == pytest.approx(value, abs=0.2) or name.startswith("position_k"), name


def test_tool(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["vit_demo_patch8", "--data", str(scenes), "--out", str(tmp_path / "out"), "--image-size", "32", "40"]
    arguments += ["--linear-iterations", "2", "--memory", "50", "--features", "raw"]
    assert probe_dense.main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[-2].startswith("knn_segmentation: miou ")
    record = json.loads((tmp_path / "out" / "knn_segmentation" / "record.json").read_text())
    assert record["architecture"]["image_size"] == [32, 40] and record["config"]["leading"] == "raw_k30"
    assert probe_dense.main(["vit_demo_patch9", *arguments[1:]]) == 1
    assert "no ViT is called 'vit_demo_patch9'" in capsys.readouterr().err
    assert probe_dense.main([*arguments[:4], str(scenes / "images" / "training" / "new")]) == 1
    assert "which is read; give another --out" in capsys.readouterr().err
