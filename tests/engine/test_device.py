"""Which device a run takes, and what is said where it is not there."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.config import NOT_IDENTITY, Duration, OptimConfig, RunConfig, ScheduleConfig
from engine.device import _choose_products, auto_precision, determined, device_named, make_fabric
from engine.records.record import read_record
from engine.training.loop import fit
from scenes.layouts import ScenesIndex
from tools import evaluate, predict, probe, train_cls

RUN = RunConfig(length=Duration(1), batch_size=2, optim=OptimConfig(base_lr=1e-3), schedule=ScheduleConfig())


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "cuda:x", "cpu:0", ""])
def test_what_names_no_device_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"device is '.*'; it is auto, cpu, cuda, or cuda:N for GPU N\."):
        replace(RUN, device=name)
    with pytest.raises(ValueError, match="it is auto, cpu, cuda, or cuda:N"):
        device_named(name, processes=1)


def test_devices_by_name(two_gpus: None) -> None:
    found = {name: device_named(name, processes=1) for name in ("auto", "cpu", "cuda", "cuda:1")}
    assert found == {"auto": torch.device("cuda"), "cpu": torch.device("cpu"), "cuda": torch.device("cuda"),
                     "cuda:1": torch.device("cuda", 1)}  # fmt: skip
    assert device_named("cuda", processes=8) == torch.device("cuda")
    with pytest.raises(ValueError, match=r"device cuda:1: torchrun started 2 processes, each for a GPU of its own"):
        device_named("cuda:1", processes=2)
    with pytest.raises(ValueError, match=r"device cuda:2: there is no such device here, but cpu, cuda:0, cuda:1 "):
        device_named("cuda:2", processes=1)


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    for name in ("cuda", "cuda:0"):
        with pytest.raises(ValueError, match=rf"device {name}: there is no such device here, but cpu"):
            device_named(name, processes=1)
    assert make_fabric("32-true", device="cpu").device == torch.device("cpu")


def test_the_cpu_is_taken_on_a_machine_with_gpus(two_gpus: None) -> None:
    """With its own precision; GPUs are not even counted."""
    fabric = make_fabric("auto", device="cpu")
    assert fabric.device == torch.device("cpu")
    assert fabric._precision.precision == auto_precision(on_gpu=False)
    with pytest.raises(ValueError, match="16-mixed needs a GPU"):
        make_fabric("16-mixed", device="cpu")


def test_a_gpu_multiplies_in_float32_after_a_run_on_the_cpu() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        make_fabric("32-true", device="cpu")
        _choose_products(torch.device("cuda", 0))
        assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)


def test_every_tool_has_the_switch(
    few_scenes: ScenesIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    data, run = ["--data", str(few_scenes.imagenet)], str(tmp_path / "run")
    train = ["tiny", *data, "--out", run, "--steps", "1", "--batch-size", "2"]
    nowhere = ["--device", "cuda:7"]
    for main, argv in (
        (train_cls.main, train),
        (probe.main, ["vit_demo_patch8", *data, "--out", str(tmp_path / "probe")]),
    ):
        assert main([*argv, *nowhere]) == 1
        assert "device cuda:7: there is no such device here, but cpu" in capsys.readouterr().err
    assert not (tmp_path / "run").exists() and not (tmp_path / "probe").exists()
    assert train_cls.main([*train, "--device", "cpu", "--deterministic"]) == 0
    kept = read_record(tmp_path / "run").config["run"]
    assert (kept["device"], kept["deterministic"]) == ("cpu", True)
    image = str(next((few_scenes.imagenet / "val").rglob("*.jpg")))
    for main, argv in ((evaluate.main, [run]), (predict.main, [run, image])):
        assert main([*argv, *nowhere]) == 1
        assert "device cuda:7: there is no such device here, but cpu" in capsys.readouterr().err
        assert main([*argv, "--device", "cpu"]) == 0


def test_another_device_is_the_same_run() -> None:
    assert "device" in NOT_IDENTITY and "deterministic" not in NOT_IDENTITY


def test_what_is_determined_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "benchmark", True)
    with determined(False):
        assert not torch.are_deterministic_algorithms_enabled() and "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    with determined(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert cudnn.deterministic and not cudnn.benchmark
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled()
    assert cudnn.benchmark and not cudnn.deterministic


def test_a_run_is_determined_while_it_runs(toy_task, toy_config, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    task = toy_task()
    forward = type(task.model).forward

    def watched(self: torch.nn.Module, batch: object) -> object:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return forward(self, batch)

    monkeypatch.setattr(type(task.model), "forward", watched)
    config = replace(toy_config, run=replace(toy_config.run, deterministic=True))
    fit(task, config, recipe="toy", out=tmp_path)
    assert seen and all(seen) and not torch.are_deterministic_algorithms_enabled()
