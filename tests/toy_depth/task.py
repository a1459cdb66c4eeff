"""The toy task at work: `DATA/{train,val}/*.png`, and `DATA/depth.json` with the depth of every image in metres."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.param_groups import param_groups
from backbones.vit import ViT
from backbones.weights.initial import start_from
from backbones.weights.normalisation import Normalisation
from engine.config import OptimConfig
from engine.cost import count_flops
from engine.images.reading import read_rgb
from engine.memory.plan import Plannable
from engine.records.results_file import ImageResult
from engine.task import Facts
from tests.toy_depth.config import DepthConfig
from tests.toy_depth.spec import DEPTH

Sample = tuple[Tensor, float, str]
Batch = tuple[Tensor, Tensor, list[str]]


class Images:
    """The images of a split with their depths."""

    def __init__(self, data: Path, split: str, size: tuple[int, int], normalisation: Normalisation) -> None:
        self.paths = sorted((data / split).glob("*.png"))
        self.depths: dict[str, float] = json.loads((data / "depth.json").read_text())
        self.size, self.normalisation = size, normalisation

    def __len__(self) -> int:
        return len(self.paths)

    def image_id(self, index: int) -> str:
        return self.paths[index].name

    def __getitem__(self, index: int) -> Sample:
        return (
            pixels(self.paths[index], self.size, self.normalisation),
            self.depths[self.image_id(index)],
            self.image_id(index),
        )


def pixels(path: Path, size: tuple[int, int], normalisation: Normalisation) -> Tensor:
    """Return an image as the model takes it, (3, H, W)."""
    image = read_rgb(path).resize(size[::-1])
    image_HWC = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(*size, 3)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in asdict(normalisation).values())
    return (image_HWC.permute(2, 0, 1) / 255 - mean) / std


class Regressor(nn.Module):
    """The ViT and a linear layer."""

    def __init__(self, config: DepthConfig) -> None:
        super().__init__()
        self.backbone, self.scale = ViT(config.backbone), config.loss_scale
        self.head = nn.Linear(config.backbone.embed_dim, 1)

    def depth(self, image_BCHW: Tensor) -> Tensor:
        return self.head(self.backbone(image_BCHW)[:, 1:].mean(dim=1))[:, 0].float()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        image_BCHW, depth_B, _ = batch
        return {"loss": self.scale * (self.depth(image_BCHW) - depth_B).square().mean()}


class DepthTask:
    """The members of engine.task.Task."""

    name, primary_metric = DEPTH.name, DEPTH.primary.name

    def __init__(self, model: Regressor, data: tuple[Images, Images], facts: Facts, depth: int) -> None:
        self.model, self.facts, self._depth = model, facts, depth
        self.train_data, self.val_data = data

    @staticmethod
    def collate(samples: Sequence[Sample]) -> Batch:
        images, depths, ids = zip(*samples, strict=True)
        return torch.stack(images), torch.tensor(depths), list(ids)

    def param_groups(self, optim: OptimConfig) -> Any:
        return param_groups(
            self.model,
            weight_decay=optim.weight_decay,
            layer_decay=optim.layer_decay,
            depth=self._depth,
            prefix="backbone.",
        )

    def predict(self, batch: Batch) -> list[ImageResult]:
        found = self.model.depth(batch[0])
        each = zip(batch[2], found.tolist(), batch[1].tolist(), strict=True)
        return [ImageResult(i, {"depth": d, "squared_error": (d - true) ** 2}) for i, d, true in each]

    def score(self, results: Sequence[ImageResult]) -> dict[str, float]:
        return {DEPTH.primary.name: math.sqrt(sum(r.values["squared_error"] for r in results) / len(results))}

    def draw(self, results: Sequence[ImageResult], folder: Path) -> list[Path]:
        return []

    def finish(self, folder: Path) -> list[Path]:
        return []


def build_task(config: DepthConfig, *, data: Path, init: Any) -> DepthTask:
    """Return the task from a checkpoint or from random weights."""
    model, size = Regressor(config), config.backbone.image_size
    report, normalisation = start_from(model.backbone, init)
    train, val = (Images(data, split, size, normalisation) for split in ("train", "val"))
    facts = Facts(
        data=str(data),
        train_split="train",
        val_split="val",
        train_images=len(train),
        val_images=len(val),
        architecture=asdict(config.backbone),
        weights=report,
        init=init,
        normalisation=asdict(normalisation),
        flops_per_image=count_flops(model.backbone, torch.zeros(1, 3, *size)),
    )
    return DepthTask(model, (train, val), facts, config.backbone.depth)


def plannable(config: DepthConfig) -> Plannable:
    """Return the model and its loss on images of the recipe's size."""
    model = Regressor(config)

    def loss(images: int) -> Tensor:
        return model((torch.zeros(images, 3, *config.backbone.image_size), torch.zeros(images), []))["loss"]

    return Plannable(model=model, run=config.run, loss=loss)
