"""Answers of a trained model on images that have no labels: what `tools/predict.py` asks of a task, and how it runs."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from engine.device import make_fabric
from engine.images import UnreadableImageError, find_images
from engine.reevaluate import Buildable, rebuild
from engine.resume import load_model
from files.writing import replacing

PREDICTIONS_NAME = "predictions.json"


@runtime_checkable
class Predicts(Protocol):
    """A task that can look at an image of any origin."""

    def predict_image(self, path: Path) -> dict[str, Any]:
        """Return what the model says of an image file, as plain JSON values; the model is in eval mode.

        Raises UnreadableImageError.
        """

    def draw_image(self, path: Path, values: dict[str, Any], picture: Path) -> None:
        """Write a PNG of the image with what `predict_image` returned."""


@dataclass(frozen=True)
class Predicted:
    """What was written, and which images could not be read."""

    file: Path
    images: int
    pictures: tuple[Path, ...]
    unreadable: tuple[str, ...]


def images_named(names: Sequence[str]) -> list[Path]:
    """Return the image files that paths, folders and glob patterns name, each once, in the given order.

    Raises FileNotFoundError for a name that matches nothing.
    """
    found: dict[Path, None] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            found |= dict.fromkeys(find_images(path))
            continue
        matches = [path] if path.is_file() else [Path(match) for match in sorted(glob(name, recursive=True))]
        files = [match for match in matches if match.is_file()]
        if not files:
            raise FileNotFoundError(f"{name}: no such image, folder, or pattern that matches a file.")
        found |= dict.fromkeys(files)
    return list(found)


def predict_images(
    run: Path,
    tasks: dict[str, Buildable],
    images: Sequence[Path],
    *,
    out: Path,
    data: Path | None,
    say: Callable[[str], None],
) -> Predicted:
    """Write `out/predictions.json` and `out/<image>.png` by the last checkpoint of the run; return what was written.

    An image that cannot be read is said and listed, and the others go on.
    """
    rebuilt = rebuild(run, tasks, data=data, split=None)
    task = rebuilt.task
    if not isinstance(task, Predicts):
        raise ValueError(f"{run}: a run of task {task.name!r}, which makes no predictions on images without labels.")
    fabric = make_fabric(rebuilt.run.precision)
    load_model(rebuilt.checkpoint, task.model)
    task.model.to(fabric.device).eval()
    entries: list[dict[str, Any]] = []
    pictures: list[Path] = []
    unreadable: list[str] = []
    for image, picture in zip(images, _pictures(images, out), strict=True):
        try:
            with torch.no_grad(), fabric.autocast():
                values = task.predict_image(image)
        except UnreadableImageError as error:
            unreadable.append(str(error))
            say(f"warning: {error}")
            continue
        entries.append({"image": str(image), **values})
        task.draw_image(image, values, picture)
        pictures.append(picture)
    with replacing(out / PREDICTIONS_NAME) as temporary:
        temporary.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    return Predicted(out / PREDICTIONS_NAME, len(entries), tuple(pictures), tuple(unreadable))


def _pictures(images: Sequence[Path], out: Path) -> list[Path]:
    """Return a picture's path for each image; where names repeat, the later ones are numbered."""
    taken: dict[str, int] = {}
    paths = []
    for image in images:
        taken[image.stem] = taken.get(image.stem, 0) + 1
        again = f"-{taken[image.stem]}" if taken[image.stem] > 1 else ""
        paths.append(out / f"{image.stem}{again}.png")
    return paths
