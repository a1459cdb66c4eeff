"""A task of a few numbers, for tests of the loop alone."""

import random
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from backbones.param_groups import ParamGroup, param_groups
from backbones.weights.loader import RANDOM
from engine.config import Duration, OptimConfig, RunConfig, ScheduleConfig
from engine.images.reading import UnreadableImageError
from engine.records.results_file import ImageResult
from engine.task import Facts


class NoisyPoints:
    """Points with noise from all three generators; some may be unreadable, one may send a signal when read."""

    def __init__(self, size: int = 24) -> None:
        self.points = torch.randn(size, 4, generator=torch.Generator().manual_seed(3))
        self.unreadable: set[int] = set()
        self.nan: set[int] = set()
        self.reads = -1  # the look for one that can be read, before the first step, does not count
        self.signal_at_read: int | None = None

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        self.reads += 1
        if self.reads == self.signal_at_read:
            signal.raise_signal(signal.SIGTERM)
        if index in self.unreadable:
            raise UnreadableImageError(f"folder/{index}.jpg", "truncated")
        noise = 0.01 * (random.random() + float(np.random.rand())) + 0.01 * torch.rand(4)
        value = float("nan") if index in self.nan else 0.0
        return self.points[index] + noise + value, self.image_id(index)

    def image_id(self, index: int) -> str:
        return f"{index}.jpg"


class ToyModel(nn.Module):
    """Linear regression of the sum, with dropout so that the step's generator matters."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(4, 4)])})
        self.drop = nn.Dropout(0.25)
        self.head = nn.Linear(4, 1)

    def predict(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.backbone["blocks"][0](x))).squeeze(1)

    def forward(self, batch: tuple[Tensor, list[str]]) -> dict[str, Tensor]:
        x, _ = batch
        error = self.predict(x) - x.sum(dim=1)
        return {"square": error.square().mean(), "absolute": 0.1 * error.abs().mean()}


class ToyTask:
    name = "toy"
    primary_metric = "error"

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model: nn.Module = ToyModel()
        self.train_data = NoisyPoints()
        self.val_data = NoisyPoints(8)
        self.facts = Facts(
            data="toy", train_split="train", val_split="val", train_images=24, val_images=8, architecture={},
            weights=RANDOM, init=None,
        )  # fmt: skip

    @staticmethod
    def collate(samples: Sequence[tuple[Tensor, str]]) -> Any:
        points, ids = zip(*samples, strict=True)
        return torch.stack(points), list(ids)

    def param_groups(self, optim: OptimConfig) -> list[ParamGroup]:
        return param_groups(
            self.model,
            weight_decay=optim.weight_decay,
            layer_decay=optim.layer_decay,
            depth=1,
            prefix="backbone.",
        )

    def predict(self, batch: Any) -> list[ImageResult]:
        x, ids = batch
        errors = (self.model.predict(x) - x.sum(dim=1)).abs().tolist()  # type: ignore[operator]
        return [ImageResult(i, {"error": e}) for i, e in zip(ids, errors, strict=True)]

    def score(self, results: Sequence[ImageResult]) -> dict[str, float]:
        return {"error": sum(r.values["error"] for r in results) / len(results)}

    def draw(self, results: Sequence[ImageResult], folder: Path) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "toy.txt").write_text("picture")
        return [folder / "toy.txt"]

    def finish(self, folder: Path) -> list[Path]:
        return []


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    run: RunConfig = field(
        default_factory=lambda: RunConfig(
            length=Duration(7),
            batch_size=8,
            optim=OptimConfig(base_lr=0.05, base_batch_size=8, layer_decay=0.5, clip_norm=1.0),
            schedule=ScheduleConfig(warmup=Duration(2)),
            precision="32-true",
            eval_every=Duration(3),
            save_every=Duration(2),
            log_every=1,
            accumulate=2,
        )
    )
    note: str = "toy"


@pytest.fixture
def toy_task() -> Callable[[], ToyTask]:
    return ToyTask


@pytest.fixture
def toy_config() -> ToyConfig:
    return ToyConfig()
