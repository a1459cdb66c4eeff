"""A finished run of the toy task, from its folder alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from backbones.weights.normalisation import Normalisation
from engine.records.record import RunRecord
from tests.toy_depth.config import DepthConfig
from tests.toy_depth.task import Regressor, pixels


@dataclass(frozen=True)
class TrainedRegressor:
    """The members of engine.runs.predict.Predicts."""

    model: Regressor
    size: tuple[int, int]
    normalisation: Normalisation

    def predict_image(self, path: Path) -> dict[str, Any]:
        return {"depth": self.model.depth(pixels(path, self.size, self.normalisation)[None]).item()}

    def draw_image(self, path: Path, values: dict[str, Any], picture: Path) -> list[Path]:
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), min(255, max(0, round(10 * values["depth"])))).save(picture)
        return [picture]


def trained_model(
    config: DepthConfig, *, record: RunRecord, source: Path, normalisation: Normalisation
) -> TrainedRegressor:
    """Return the model of a record with random weights."""
    return TrainedRegressor(Regressor(config), config.backbone.image_size, normalisation)
