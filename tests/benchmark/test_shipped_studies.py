"""The studies that are shipped pass their checks, and their runs start as a cluster needs them."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from backbones.config import ViTConfig
from backbones.vit import ViT
from backbones.weights import initial
from backbones.weights.declaration import InitialWeights
from backbones.weights.hub import catalogued
from benchmark.runner.slurm import parameters
from benchmark.runner.status import dry_run_text
from benchmark.study.prepare import prepare
from benchmark.study.sections import Cluster
from engine.records.record import read_record
from files.parsing import read_yaml
from mae_transfer.tasks import TASKS
from scenes.layouts import ScenesIndex
from tools import run_benchmark, study_job
from tools.run_benchmark import TOOLS

REPOSITORY = Path(__file__).resolve().parents[2]


def test_training_runs_of_several_gpus_are_started_by_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(study_job.os, "execvp", lambda path, command: called.append(command))
    started = study_job._by_torchrun("train_seg", TOOLS["train_seg"], Cluster(gpus=8))
    job = started.job("tiny", {"data": Path("d"), "out": Path("x"), "steps": 3, "clip_norm": 0.5, "init": Path("w")})
    started.run(job.resumed().args, job.config)
    (command,) = called
    assert command[1:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=8"]
    assert Path(command[5]).name == "train_seg.py" and Path(command[5]).is_file()
    words = ["tiny", "--data", "d", "--out", "x", "--init", "w", "--steps", "3", "--resume", "--clip-norm", "0.5"]
    assert command[6:] == words
    assert study_job._by_torchrun("probe", TOOLS["probe"], Cluster(gpus=8)) is TOOLS["probe"]


def test_a_run_over_nodes_is_a_step_of_its_job_on_all_of_them() -> None:
    command = study_job.launcher(Cluster(nodes=4, gpus=8, cpus=96), host="node17", job=1_234_567)
    assert command[:8] == [
        *("srun", "--nodes=4", "--ntasks=4", "--ntasks-per-node=1", "--cpus-per-task=96", "--gpus-per-node=8"),
        *("--overlap", "--kill-on-bad-exit=1"),
    ]
    assert command[8:11] == [sys.executable, "-m", "torch.distributed.run"]
    meeting = ["--rdzv-backend=c10d", "--rdzv-endpoint=node17:24567", "--rdzv-id=1234567"]
    assert command[11:] == ["--nnodes=4", "--nproc-per-node=8", *meeting]
    asked = parameters(Cluster(nodes=4, gpus=8), "study-transfer", after=None)
    assert {key: asked[key] for key in ("nodes", "tasks_per_node", "gpus_per_node", "slurm_srun_args")} == {
        **{"nodes": 4, "tasks_per_node": 1, "gpus_per_node": 8},
        # the job itself is one task: what is recorded, resumed and logged is decided once
        "slurm_srun_args": ["--nodes=1", "--ntasks=1"],
    }
    assert "nodes" not in parameters(Cluster(gpus=8), "study-transfer", after=None)


SRUN = """#!/usr/bin/env bash
# Stands in for SLURM's srun: starts the command once a node, on this machine.
while [[ $1 == --* ]]; do
    [[ $1 == --nodes=* ]] && nodes=${1#--nodes=}
    shift
done
for ((node = 0; node < nodes; node++)); do
    SLURM_NODEID=$node "$@" &
    started+=($!)
done
for one in "${started[@]}"; do wait "$one" || exit 1; done
"""


@pytest.mark.slow
@pytest.mark.sweep
def test_two_nodes_on_one_machine_train_together(few_scenes: ScenesIndex, tmp_path: Path) -> None:
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o755)
    command = study_job.launcher(Cluster(nodes=2), host="127.0.0.1", job=int.from_bytes(os.urandom(3)))
    options = ["tiny", "--data", str(few_scenes.imagenet), "--out", str(tmp_path / "run"), "--device", "cpu"]
    subprocess.run(
        [*command, "tools/train_cls.py", *options, "--steps", "2", "--batch-size", "4"],
        **{"cwd": REPOSITORY, "check": True, "timeout": 300, "capture_output": True},
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"},
    )
    record = read_record(tmp_path / "run")
    assert (record.status, record.world_size, record.steps) == ("completed", 2, 2)


@pytest.mark.parametrize(
    ("name", "folders", "runs"),
    [
        ("demo", (), 31),
        ("real_small", ("cifar10", "seg_camvid", "det_bccd"), 3 + 2 + 3 * 3 * 4 + 3 * 4 * 3),
        ("methods", ("cifar10", "seg_camvid", "det_bccd"), 3 + 1 + 4 + 3 * 5 * 2 + 5 * 4 * 2),
        ("imagenet_coco_ade", ("imagenet", "coco", "ADEChallengeData2016"), 4 + 6 * 3 * 3 + 3 * 7 * 3),
        ("arms_2026", ("imagenet", "coco", "ADEChallengeData2016"), 3 + 10 * 3 * 3 + 10 * 3 * 3),
        ("arms_2026_huge", ("imagenet", "coco"), 2 + 2 * 2 * 3 + 2 * 2 * 3),
    ],
)
def test_shipped_studies_pass_their_checks(name: str, folders: tuple[str, ...], runs: int, tmp_path: Path) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir()
    (tmp_path / "weights").mkdir()
    for file in ("deit_base_patch16_224-b5f2ef4d.pth", "mae_pretrain_vit_base.pth"):
        (tmp_path / "weights" / file).touch()
    study = prepare(name, TOOLS, studies=run_benchmark.STUDIES, out=tmp_path / "out", root=tmp_path)
    study.refuse()
    assert len(study.runs) == runs
    assert f"{runs} runs" in dry_run_text(name, study.runs, study.out)


@pytest.mark.parametrize(("study", "size"), [("arms_2026", "vit_base"), ("arms_2026_huge", "vit_huge")])
def test_the_arms_of_2026_are_in_the_catalogue_and_the_page_says_what_that_says(study: str, size: str) -> None:
    folder = run_benchmark.STUDIES / study
    arms = {name: arm["init"] for name, arm in read_yaml(folder / "study.yaml")["arms"].items() if arm != "random"}
    page = (folder / "README.md").read_text(encoding="utf-8")
    said = [line for line in page.splitlines() if line.startswith(tuple(f"| {name} |" for name in arms))]
    rows = []
    for name, init in arms.items():
        entry = catalogued(init)
        assert entry is not None and entry.typed == init and entry.architecture.startswith(f"{size}_")
        facts = (entry.architecture, entry.data, entry.labels, entry.epochs or "unknown", entry.licence or "not stated")
        rows.append(" | ".join(map(str, (f"| {name}", f"`{init}`", *facts))) + " |")
    assert said == rows
    assert "has not run" in page and re.search("Nothing (else )?of their pre-training is held equal", page)


VIT = ViTConfig(embed_dim=768, depth=12, num_heads=12)
HUGE = ViTConfig(embed_dim=1280, depth=32, num_heads=16, patch_size=14)


@pytest.mark.parametrize(
    "found",
    [
        VIT,
        replace(VIT, qkv_bias="qv", layer_scale=0.1, relative_position="shared_table", position="none"),  # BEiT v2
        replace(VIT, patch_size=14, image_size=(518, 518), layer_scale=1e-5),  # DINOv2
        replace(VIT, pre_norm=True, activation="quick_gelu", norm_eps=1e-5),  # CLIP
    ],
)
def test_every_kind_of_vit_of_the_arms_goes_with_every_recipe(
    found: ViTConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = SimpleNamespace(architecture=found, state={"cls_token": None})
    monkeypatch.setattr(initial, "read_checkpoint", lambda init: checkpoint)
    declared = InitialWeights(path=Path("w"), architecture="file", resize_patch=True)
    for task in read_yaml(run_benchmark.STUDIES / "arms_2026" / "study.yaml")["tasks"].values():
        (spec,) = [spec for spec in TASKS.values() if spec.tool == task["tool"] and task["recipe"] in spec.recipes]
        config = initial.with_architecture(spec.recipes[task["recipe"]](), declared)
        with torch.device("meta"):
            vit = ViT(config.backbone, class_token=not config.backbone.window_size, final_norm=False)
        assert len(vit.blocks) == found.depth and config.backbone.patch_size == 16


def test_the_recipes_of_the_huge_arms_are_of_their_size() -> None:
    """Without `differ`: the ViT of the recipe is that of both files, but for the class token that I-JEPA lacks."""
    text = read_yaml(run_benchmark.STUDIES / "arms_2026_huge" / "study.yaml")
    assert "differ" not in text
    for task in text["tasks"].values():
        (spec,) = [spec for spec in TASKS.values() if spec.tool == task["tool"] and task["recipe"] in spec.recipes]
        vit = spec.recipes[task["recipe"]]().backbone
        assert (vit.embed_dim, vit.depth, vit.num_heads) == (HUGE.embed_dim, HUGE.depth, HUGE.num_heads)


def test_configurations_are_those_of_the_recipes(tmp_path: Path) -> None:
    for run in prepare("demo", TOOLS, studies=run_benchmark.STUDIES, out=tmp_path, seeds=(7,)).runs:
        if run.settings is not None:
            seed = run.settings["run"]["seed"]
            assert seed == (0 if run.tool == "pretrain" else 7)
