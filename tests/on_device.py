"""Runs of small recipes on the CPU, on a CUDA device that is not there, or on one that is."""

import pickle
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import pytest
import torch
from matplotlib.figure import Figure

from classification.config import ProbeConfig
from classification.probe.run import run_probes
from engine.records.record import RunRecord
from engine.runs.trained import On, open_trained
from engine.spec import TaskSpec
from engine.training.data import _Collate
from engine.training.loop import fit
from engine.training.seeding import derive, seed_all
from mae_transfer.tasks import TASKS
from scenes.layouts import ScenesIndex
from segmentation.probe.config import DenseProbeConfig
from segmentation.probe.run import run_dense_probes
from tests.pretend_cuda import pretended, pretended_fabric
from tests.same_draws import SameDraws
from tests.smaller import small_vit

Where = Literal["cpu", "cuda", "pretended"]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@contextmanager
def exact() -> Iterator[None]:
    """Have devices comparable: the same random numbers, and convolutions in float32, which cuDNN does in TF32 else."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        with SameDraws():
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def need(where: str) -> None:
    """Skip the test where it is for a GPU and there is none.

    Called when the test runs, since a process that has asked cannot fork others that use it.
    """
    if where == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU, or not asked for by `pytest -m gpu`")


@contextmanager
def device(where: Where) -> Iterator[None]:
    """Have runs take the device that is not there, where that is asked for."""
    with ExitStack() as held:
        held.enter_context(exact())
        if where != "pretended":
            yield
            return
        held.enter_context(pretended())
        for module in (
            "engine.training.loop",
            "engine.runs.trained",
            "classification.probe.run",
            "segmentation.probe.run",
        ):
            held.enter_context(patch(f"{module}.make_fabric", lambda *_, **__: pretended_fabric()))
        for module in ("engine.records.recording", "engine.training.introduction", "engine.records.probed"):
            held.enter_context(patch(f"{module}.device_name", lambda _: "pretended"))
        for module in ("engine.records.recording", "engine.records.probed"):
            held.enter_context(patch(f"{module}.peak_memory", lambda _: 0))
        yield


def trained(spec: TaskSpec, config: Any, scenes: ScenesIndex, out: Path, *, where: Where) -> RunRecord:
    """Return the record of a run whose model has then predicted an image."""
    data = {"train_det": scenes.coco, "train_seg": scenes.ade20k}.get(spec.tool, scenes.imagenet)
    config = replace(config, run=replace(config.run, device="cuda" if where == "cuda" else "cpu"))
    seed_all(derive(0, "weights"))
    trust = {"trust_tokenizer": False} if spec.reads_tokenizer else {}
    task = spec.build(config, data=data, init=None, **trust)
    assert len(pickle.dumps(_Collate(task.collate))) < 500  # loader processes get it, and no model
    with ExitStack() as held:
        # pictures are made, with what the model says of them, but not painted: that takes most of the time
        held.enter_context(patch.object(Figure, "savefig", lambda _, path, **__: Path(path).touch()))
        held.enter_context(patch("engine.training.loop.draw_curves", lambda *_: []))
        held.enter_context(device(where))
        record = fit(task, config, recipe="small", out=out)
        if spec.trained is not None:
            path = next(path for path in sorted(data.rglob("*.jpg")) if "val" in str(path.relative_to(data)))
            trained: Any = open_trained(out, TASKS, On(device=config.run.device), say=lambda _: None).trained
            with torch.no_grad():
                trained.predict_image(path)
        kinds = {parameter.device.type for parameter in task.model.parameters()}
    assert kinds == {"cpu" if where == "cpu" else "cuda"}
    assert record.status == "completed" and not record.warnings
    return record


def probed(scenes: ScenesIndex, out: Path, *, where: Where) -> list[RunRecord]:
    """Return the records of the probes of a small ViT."""
    vit = small_vit(TASKS["mae"].recipes["mae_base"]().backbone)
    config = ProbeConfig(backbone=vit, linear_epochs=2, device="cuda" if where == "cuda" else "cpu")
    with device(where):
        return run_probes(config, data=scenes.imagenet, init=None, out=out, cache=out / "features", say=lambda _: None)


def probed_densely(scenes: ScenesIndex, out: Path, *, where: Where) -> list[RunRecord]:
    """Return the records of the dense probes of a small ViT."""
    vit = small_vit(TASKS["mae"].recipes["mae_base"]().backbone)
    place = "cuda" if where == "cuda" else "cpu"
    config = DenseProbeConfig(backbone=vit, memory=100, linear_iterations=20, device=place)
    with device(where):
        cache = out / "features"
        return run_dense_probes(config, data=scenes.ade20k, init=None, out=out, cache=cache, say=lambda _: None)
