"""Tiny weights of every family go through the dense probe and masks by example, on scenes and on photographs."""

import json
from pathlib import Path

import numpy as np
import pytest

from backbones.sources import SOURCES
from backbones.weights.normalisation import HALF, IMAGENET
from engine.records.record import RunRecord, read_record
from scenes.layouts import ScenesIndex
from segmentation.probe.run import NO_NORM
from tests.weight_samples import HEADS, PLAIN, Sample
from tools import in_context, probe_dense

PIXELS = {"timm": IMAGENET, "beit": HALF}  # whose files tell neither mean nor std
ALL = [pytest.param(name, marks=() if name == "dinov3" else pytest.mark.sweep) for name in SOURCES]
OF_DATA = {"ade20k": 8, "coco": 12}  # images of each split that are taken of a set of photographs


def weights(sample: Sample, folder: Path) -> list[str]:
    """Write the file and return the flags that declare it."""
    path = sample.write(folder / "weights")
    flags = ["--init", str(path), "--init-source", sample.source, "--init-heads", str(HEADS)]
    if (pixels := PIXELS.get(sample.source)) is not None:
        for name, values in (("mean", pixels.mean), ("std", pixels.std)):
            flags += [f"--init-{name}", *map(str, values)]
    return [*flags, "--init-architecture", "file", "--image-size", "32", "32", "--device", "cpu"]


def check(record: RunRecord, sample: Sample, path: Path) -> None:
    """Compare what a record says of its weights with what the family's source reads."""
    read = sample.read(path)
    assert record.weights_source == read.source and record.weights_sha256
    assert record.architecture["embed_dim"] == PLAIN.embed_dim and record.architecture["image_size"] == [32, 32]
    assert (NO_NORM in record.data_notes) == ("norm.weight" not in read.state)
    assert all(np.isfinite(value) for value in record.metrics.values())


def both(sample: Sample, ade20k: Path, coco: list[str], folder: Path) -> RunRecord:
    """Run both tools, check their records, and return that of masks by example."""
    given = weights(sample, folder)
    path = next(folder.glob("weights*"))
    dense = ["--data", str(ade20k), "--memory", "60", "--linear-iterations", "1", "--out", str(folder / "dense")]
    assert probe_dense.main(["vit_demo_patch8", *given, *dense]) == 0
    for task in ("knn_segmentation", "linear_segmentation"):
        check(read_record(folder / "dense" / task), sample, path)
    found = ["--queries-per-class", "1", *coco, "--out", str(folder / "found")]
    assert in_context.main(["vit_demo_patch8", *given, *found]) == 0
    record = read_record(folder / "found/in_context")
    check(record, sample, path)
    return record


@pytest.mark.parametrize("source", ALL)
def test_scenes(source: str, samples: dict[str, Sample], few_scenes: ScenesIndex, tmp_path: Path) -> None:
    record = both(samples[source], few_scenes.ade20k, ["--data", str(few_scenes.coco)], tmp_path)
    assert record.metrics["random_weights"] != record.metrics["standardised_k30"]


@pytest.fixture(scope="module")
def photographs(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first frames of CamVid and photographs of COCO, by links."""
    root = tmp_path_factory.mktemp("photographs")
    for kind in ("images", "annotations"):
        for split in ("training", "validation"):
            (root / "ade20k" / kind / split).mkdir(parents=True)
            for path in sorted((real_data / "seg_camvid" / kind / split).iterdir())[: OF_DATA["ade20k"]]:
                (root / "ade20k" / kind / split / path.name).symlink_to(path)
    (root / "coco/annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (root / "coco" / split).symlink_to(real_data / "det_coco" / split)
        name = f"annotations/instances_{split}.json"
        content = json.loads((real_data / "det_coco" / name).read_text())
        content["images"] = content["images"][: OF_DATA["coco"]]
        kept = {image["id"] for image in content["images"]}
        content["annotations"] = [each for each in content["annotations"] if each["image_id"] in kept]
        (root / "coco" / name).write_text(json.dumps(content))
    return root


@pytest.mark.sweep
@pytest.mark.parametrize("source", SOURCES)
def test_photographs(source: str, samples: dict[str, Sample], photographs: Path, tmp_path: Path) -> None:
    coco = ["--data", str(photographs / "coco"), "--train-split", "train", "--val-split", "val"]
    both(samples[source], photographs / "ade20k", coco, tmp_path)
