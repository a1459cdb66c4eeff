"""Studies through the real tools, with one or two steps per run on a handful of scenes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools import export_tables

REPOSITORY = Path(__file__).resolve().parents[2]
SCENES = """
scenes:
  many: {seed: 0, classify_train: 16, classify_val: 8, classify_test: 8, dense_train: 1, dense_val: 1, dense_test: 1}
  few: {seed: 1, classify_train: 16, classify_val: 8, classify_test: 8, dense_train: 8, dense_val: 4, dense_test: 1}
"""
THREE_TASKS = f"""
name: three
seeds: [0]
{SCENES}
arms:
  random: random
  supervised: {{pretrain: {{recipe: tiny_supervised, data: many/imagenet, steps: 1, batch_size: 4}}}}
  mae: {{pretrain: {{recipe: tiny, data: many/imagenet, steps: 1, batch_size: 4}}}}
tasks:
  objects: {{tool: train_cls, recipe: tiny, data: few/imagenet, steps: 1, batch_size: 4}}
  boxes: {{tool: train_det, recipe: tiny, data: few/coco, steps: 1, batch_size: 4}}
  maps: {{tool: train_seg, recipe: tiny, data: few/ade20k, steps: 1, batch_size: 4}}
  probe: {{tool: probe, recipe: vit_demo_patch8, data: few/imagenet, linear_epochs: 1}}
"""
SEARCHED = f"""
name: searched
seeds: [0, 1]
{SCENES}
arms:
  random: random
  mine: {{pretrain: {{recipe: tiny, data: many/imagenet, steps: 2, batch_size: 4}}}}
compare: {{claim: mine, against: random}}
tasks:
  maps:
    {{tool: train_seg, recipe: tiny, data: few/ade20k, steps: 2, batch_size: 4,
      search: {{base_lrs: [1e-4, 1e-3], hold_out: 0.25}}}}
"""


def carry_out(text: str, folder: Path, *more: str) -> str:
    """Return what the tool prints for a study."""
    (folder / "study.yaml").write_text(text)
    command = [
        sys.executable,
        "tools/run_benchmark.py",
        str(folder / "study.yaml"),
        "--out",
        str(folder / "out"),
        *more,
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path])}
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=500, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_study_runs_and_its_second_run_repeats_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for expected in ("16 runs completed now", "14 were recorded already"):
        printed = carry_out(THREE_TASKS, tmp_path)
        assert expected in printed and "Overall: " in printed
    assert export_tables.main([str(tmp_path / "out"), "--format", "csv"]) == 0
    table = capsys.readouterr().out
    assert all(metric in table for metric in ("top1", "box_ap", "mask_ap", "miou"))
    assert '"probe, k-NN",top1,mae' in table and '"probe, linear on features",top1,mae' in table


@pytest.mark.sweep
@pytest.mark.slow
def test_a_study_with_a_search(tmp_path: Path) -> None:
    printed = carry_out(SEARCHED, tmp_path)
    assert "12 runs completed now" in printed
    out = tmp_path / "out"
    for arm in ("random", "mine"):
        choice = json.loads((out / f"search/maps-{arm}/choice.json").read_text())
        assert [tried["base_lr"] for tried in choice["tried"]] == [1e-4, 1e-3] and choice["val_images"] == 2
        best = max(choice["tried"], key=lambda tried: (tried["value"], -tried["base_lr"]))
        for seed in (0, 1):
            record = json.loads((out / f"maps-{arm}-seed{seed}/record.json").read_text())
            assert record["config"]["run"]["optim"]["base_lr"] == best["base_lr"] == choice["base_lr"]
            assert (record["arm"], record["seed"], record["val_images"]) == (arm, seed, 4)
        assert f"Learning rate of {arm} in maps: " in (out / "table.md").read_text()
    assert "mine minus random" in printed and "WARNING" in printed
    assert "12 completed" in carry_out(SEARCHED, tmp_path, "--status")
    assert "0 without a result" in carry_out(SEARCHED, tmp_path)
    assert json.loads((out / "table.json").read_text())["searches"][0]["edge"] in ("lowest", "highest")


ABLATION = f"""
name: ablation
seeds: [0]
budget: {{match: none}}
differ: [architecture]
compare: {{claim: sincos, against: none}}
{SCENES}
tokenizers:
  dvae: {{recipe: tiny_dvae, data: many/imagenet, steps: 1, batch_size: 4}}
arms:
  random: random
  beit:
    pretrain:
      {{recipe: tiny_beit, tokenizer: dvae/tokenizer.safetensors, data: many/imagenet, steps: 1, batch_size: 4}}
  sincos: {{pretrain: {{recipe: tiny, data: many/imagenet, steps: 1, batch_size: 4}}}}
  none: {{pretrain: {{recipe: tiny, data: many/imagenet, steps: 2, batch_size: 4, position: none}}}}
  narrow: {{pretrain: {{recipe: tiny_half, data: many/imagenet, steps: 1, batch_size: 4}}}}
tasks:
  objects: {{tool: train_cls, recipe: tiny, data: few/imagenet, steps: 1, batch_size: 4}}
  probe: {{tool: probe, recipe: vit_demo_patch8, data: few/imagenet, linear_epochs: 1}}
published:
  source: a paper, table 1
  setting: ViT-L
  rows: [{{arm: none, variant: no positions, values: {{linear: 74.9}}}}]
"""


@pytest.mark.sweep
@pytest.mark.slow
def test_an_ablation_of_the_architecture(tmp_path: Path) -> None:
    assert "17 runs completed now" in carry_out(ABLATION, tmp_path, "--at-once", "2")
    out = tmp_path / "out"
    for arm, wanted in (("random", ("sincos", 192)), ("sincos", ("sincos", 192)), ("none", ("none", 192)),
                        ("beit", ("none", 192)), ("narrow", ("sincos", 96))):  # fmt: skip
        for run in (f"objects-{arm}-seed0", f"probe-{arm}-seed0/knn"):
            vit = json.loads((out / run / "record.json").read_text())["architecture"]
            assert (vit["position"], vit["embed_dim"]) == wanted, run
    table = (out / "table.md").read_text()
    assert "Refused" not in table and "arms differ in architecture:" in table
    assert "Tokenizer dvae: trained on 4 samples in " in table
    assert "| no positions | 74.9" in table
    assert (out / "scaling.png").is_file()
    rows = [row.split("|")[3:6] for row in (out / "scaling.md").read_text().splitlines() if "objects" in row]
    assert ["MAE", "narrow", "0.70"] in [[cell.strip() for cell in row] for row in rows]
    assert "15 were recorded already" in carry_out(ABLATION, tmp_path)
