"""A study whose task is a dense probe, of weights with and without a class token and of random ones."""

from pathlib import Path

import pytest

from backbones.config import FAMILY
from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from engine.records.record import read_record
from scenes.layouts import ScenesIndex
from tools import export_tables, run_benchmark

STUDY = """
name: dense
seeds: [0, 1]
arms:
  random: random
  mae: {init: mae.safetensors}
  tokenless: {init: tokenless.safetensors}
compare: {claim: mae, against: random}
tasks:
  patches:
    {tool: probe_dense, recipe: vit_demo_patch8, data: ade20k, image_size: [32, 32], memory: 60, linear_iterations: 2}
"""


@pytest.mark.slow
def test_a_dense_probe_is_a_task(few_scenes: ScenesIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, class_token in (("mae", True), ("tokenless", False)):
        vit = ViT(FAMILY["vit_demo_patch8"], class_token=class_token)
        write_checkpoint(tmp_path / f"{name}.safetensors", vit, source=name)
    (tmp_path / "ade20k").symlink_to(few_scenes.ade20k)
    (tmp_path / "study.yaml").write_text(STUDY)
    out = tmp_path / "out"
    for expected in ("6 runs completed now", "6 were recorded already"):
        code = run_benchmark.main([str(tmp_path / "study.yaml"), "--data", str(tmp_path), "--out", str(out)])
        printed = capsys.readouterr().out
        assert code == 0 and expected in printed, printed
    assert len(list((out / "features").iterdir())) == 2 * (2 + 2)  # two seeds of random weights
    records = [read_record(out / f"patches-mae-seed{seed}" / "knn_segmentation") for seed in (0, 1)]
    assert [record.seed for record in records] == [0, 1]
    assert records[0].results_sha256 != records[1].results_sha256  # another memory
    assert export_tables.main([str(out), "--format", "csv"]) == 0
    table = capsys.readouterr().out
    assert '"patches, k-NN on patches",miou,mae' in table and '"patches, linear on patches",miou,tokenless' in table
    assert export_tables.main([str(out), "--format", "html", "--out", str(tmp_path / "page.html")]) == 0
    assert "k-NN on patches: iou of each class" in (tmp_path / "page.html").read_text()
