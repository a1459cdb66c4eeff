"""Predictions of a trained model on images that have no labels: what `tools/predict.py` asks of a task, and how it
runs."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from engine.images.reading import UnreadableImageError, find_images
from engine.runs.reopen import Asked, files_of, rebuild
from engine.spec import TaskTable
from engine.training.resume import load_model
from files.naming import distinct_stems, inside, refuse_overwriting
from files.writing import replacing

PREDICTIONS_NAME = "predictions.json"
ENDINGS = (".png", "_labels.png")  # of what a task may draw of an image: the picture, and an index PNG beside it


@runtime_checkable
class Predicts(Protocol):
    """A task that can look at an image of any origin."""

    def predict_image(self, path: Path) -> dict[str, Any]:
        """Return what the model says of an image file, as plain JSON values; the model is in eval mode.

        Raises UnreadableImageError.
        """

    def draw_image(self, path: Path, values: dict[str, Any], picture: Path) -> list[Path]:
        """Write a PNG of the image with what `predict_image` returned, and what belongs beside it; return the paths.

        What belongs beside it is called as the picture, with one of ENDINGS.
        """


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What was written, and which images gave nothing."""

    file: Path
    images: int
    pictures: tuple[Path, ...]
    failed: tuple[str, ...]
    """A line for each, which begins with the image's path."""


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
    tasks: TaskTable,
    images: Sequence[Path],
    asked: Asked,
    *,
    out: Path | None,
    say: Callable[[str], None],
) -> Predicted:
    """Write `predictions.json` and a picture per image by the last checkpoint of the run; return what was written.

    They go to the folder `out`, RUN/predictions unless given. Every image has pictures of its own, which
    predictions.json names. An image that nothing can be said of, whatever the reason, is said and listed, and the
    others go on.

    Raises as `rebuild`, and ValueError where an output would be written over an image or a file of the run.
    """
    folder = inside(run, "predictions", source=run) if out is None else out
    stems = distinct_stems([image.stem for image in images], [str(image) for image in images], endings=ENDINGS)
    outputs = [folder / f"{stem}{ending}" for stem in stems for ending in ENDINGS]
    refuse_overwriting([folder / PREDICTIONS_NAME, *outputs], [*images, *files_of(run)])
    rebuilt = rebuild(run, tasks, asked, say=say)
    task = rebuilt.task
    if not isinstance(task, Predicts):
        raise ValueError(f"{run}: a run of task {task.name!r}, which makes no predictions on images without labels.")
    fabric = rebuilt.fabric()
    load_model(rebuilt.checkpoint, task.model)
    task.model.to(fabric.device).eval()
    entries: list[dict[str, Any]] = []
    pictures: list[Path] = []
    failed: list[str] = []
    for image, stem in zip(images, stems, strict=True):
        picture = folder / f"{stem}{ENDINGS[0]}"
        try:
            with torch.no_grad(), fabric.autocast():
                values = task.predict_image(image)
            json.dumps(values)
            drawn = task.draw_image(image, values, picture)
        except UnreadableImageError as error:
            failed.append(str(error))
            say(f"warning: {error}")
        except Exception as error:  # of one image: the others go on, and the exit code tells
            failed.append(f"{image}: {type(error).__name__}: {error}")
            say(f"warning: {failed[-1]}")
        else:
            entries.append({"image": str(image), "pictures": [path.name for path in drawn], **values})
            pictures += drawn
    with replacing(folder / PREDICTIONS_NAME) as temporary:
        temporary.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    file = folder / PREDICTIONS_NAME
    return Predicted(file=file, images=len(entries), pictures=tuple(pictures), failed=tuple(failed))
