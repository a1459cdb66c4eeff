"""The studies that are shipped pass their checks, and their runs start as a cluster needs them."""

from pathlib import Path

import pytest

from benchmark.runner.status import dry_run_text
from benchmark.study.prepare import prepare
from tools import run_benchmark, study_job
from tools.run_benchmark import TOOLS


def test_training_runs_of_several_gpus_are_started_by_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(study_job.os, "execv", lambda path, command: called.append(command))
    started = study_job._by_torchrun("train_seg", TOOLS["train_seg"], 8)
    job = started.job("tiny", {"data": Path("d"), "out": Path("x"), "steps": 3, "clip_norm": 0.5, "init": Path("w")})
    started.run(job.resumed().args, job.config)
    (command,) = called
    assert command[1:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=8"]
    assert Path(command[5]).name == "train_seg.py" and Path(command[5]).is_file()
    words = ["tiny", "--data", "d", "--out", "x", "--init", "w", "--steps", "3", "--resume", "--clip-norm", "0.5"]
    assert command[6:] == words
    assert study_job._by_torchrun("probe", TOOLS["probe"], 8) is TOOLS["probe"]


@pytest.mark.parametrize(
    ("name", "folders", "runs"),
    [
        ("demo", (), 31),
        ("real_small", ("cifar10", "seg_camvid", "det_bccd"), 3 + 2 + 3 * 3 * 4 + 3 * 4 * 3),
        ("methods", ("cifar10", "seg_camvid", "det_bccd"), 3 + 1 + 4 + 3 * 5 * 2 + 5 * 4 * 2),
        ("imagenet_coco_ade", ("imagenet", "coco", "ADEChallengeData2016"), 4 + 6 * 3 * 3 + 3 * 7 * 3),
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


def test_configurations_are_those_of_the_recipes(tmp_path: Path) -> None:
    for run in prepare("demo", TOOLS, studies=run_benchmark.STUDIES, out=tmp_path, seeds=(7,)).runs:
        if run.settings is not None:
            seed = run.settings["run"]["seed"]
            assert seed == (0 if run.tool == "pretrain" else 7)
