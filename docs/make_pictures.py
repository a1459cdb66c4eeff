"""Make the pictures of README.md: what three runs say of one scene, and the differences of a study.

    python tools/make_scenes.py --out data/scenes --classify-train 6000 --dense-train 2000 --dense-val 100
    python tools/pretrain.py tiny --data data/scenes/imagenet --steps 600 --out runs/mae
    python tools/train_det.py tiny --data data/scenes/coco --init runs/mae/backbone.safetensors \\
        --steps 700 --out runs/det
    python tools/train_seg.py tiny --data data/scenes/ade20k --init runs/mae/backbone.safetensors \\
        --steps 500 --out runs/seg
    python docs/make_pictures.py runs data/scenes

Writes docs/pictures/scene.png from the runs RUNS/mae, RUNS/det and RUNS/seg, and docs/pictures/differences.png from the
page of studies/real_small.
"""

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from detection.evaluation.draw import MIN_SCORE, draw_objects
from engine.drawing import write_figure
from engine.images.reading import read_rgb
from engine.training.seeding import seeded
from files.writing import replacing
from mae_transfer import load_run
from pretraining.augment import validation_view
from pretraining.gallery import open_run
from pretraining.mae.masking import draw_noise
from pretraining.mae.pictures import pasted, pixels
from scenes.classes import WORLDS
from scenes.sheet import class_colours
from segmentation.evaluation.predictions import from_values

ROOT = Path(__file__).resolve().parents[1]
PANEL = 2.3  # inches


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags of the pictures."""

    runs: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUNS")]
    """Folder of the runs mae, det and seg."""
    scenes: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SCENES")]
    """Folder of the scenes."""
    scene: str = "000010000039"
    """The validation image that is drawn: of the first sixty one in which all parts are easy to see."""
    seed: int = 0
    """Of the mask."""
    out: Path = ROOT / "docs/pictures"
    """Folder to write to."""


def main() -> None:
    """Write the pictures and print their paths."""
    args = tyro.cli(Args, description=__doc__)
    print(draw_scene(args.out / "scene.png", args))
    print(first_picture(ROOT / "studies/real_small/report.html", args.out / "differences.png"))


def draw_scene(path: Path, args: Args) -> Path:
    """Write one scene as each run sees it (above), and what is right (below)."""
    image = args.scenes / "coco/val2017" / f"{args.scene}.jpg"
    image_HW3 = np.asarray(read_rgb(image))
    figure = Figure(figsize=(4 * PANEL, 2 * PANEL + 0.75), layout="constrained")
    cells = figure.subplots(2, 4)
    masked, reconstructed = reconstruction(args.runs / "mae", image, args.seed)
    found = load_run(args.runs / "det").predict([image])[0]["detections"]
    classes_HW = from_values(load_run(args.runs / "seg").predict([image])[0]) + 1  # ADE20K's maps count from 1
    truth, names = annotations(args.scenes / "coco/annotations/instances_val2017.json", image.name)
    with Image.open(args.scenes / "ade20k/annotations/validation" / f"{args.scene}.png") as file:
        labels_HW = np.asarray(file)

    world = WORLDS["outdoor"]
    colours = class_colours(world)
    show(cells[0, 0], masked, "MAE sees a quarter of the patches")
    show(cells[0, 1], reconstructed, "MAE reconstructs the rest")
    cells[0, 2].set_title("detection: boxes and masks", fontsize=9)
    draw_objects(cells[0, 2], image_HW3, [item for item in found if item["score"] >= MIN_SCORE], names=names)
    show(cells[0, 3], colours[classes_HW], "segmentation: classes")
    cells[1, 0].axis("off")
    show(cells[1, 1], image_HW3, "the image")
    cells[1, 2].set_title("annotated objects", fontsize=9)
    draw_objects(cells[1, 2], image_HW3, truth, names=names)
    show(cells[1, 3], colours[labels_HW], "annotated classes")
    seen = sorted({*np.unique(classes_HW), *np.unique(labels_HW)} - {0})
    patches = [Patch(facecolor=colours[number] / 255, label=world.semantic_names[number - 1]) for number in seen]
    patches += [Patch(facecolor="black", label="not labelled")] * bool((labels_HW == 0).any())
    cells[1, 0].legend(handles=patches, loc="center", fontsize=9, frameon=False, title="classes")
    write_figure(figure, path)
    return path


def reconstruction(run: Path, image: Path, seed: int) -> tuple[Any, Any]:
    """Return the masked image and its reconstruction, (H, W, 3) in [0, 1], under the run's own mask ratio."""
    shown = open_run(run)
    assert shown.autoencoder is not None
    model = shown.autoencoder.eval()
    image_CHW = validation_view(model.encoder.architecture.image_size, shown.normalisation)(read_rgb(image))
    with seeded(seed):
        noise_BN = draw_noise(model.encoder.architecture.grid, kept=model.kept, sampling="random")[None]
    made = pasted(model, image_CHW[None], noise_BN)
    return pixels(made.masked[0], shown.normalisation), pixels(made.pasted[0], shown.normalisation)


def annotations(file: Path, name: str) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """Return the objects of an image, and the names of all categories."""
    content = json.loads(file.read_bytes())
    number = next(image["id"] for image in content["images"] if image["file_name"] == name)
    objects = [item for item in content["annotations"] if item["image_id"] == number]
    return objects, {category["id"]: category["name"] for category in content["categories"]}


def show(cell: Axes, image_HW3: Any, title: str) -> None:
    """Draw an image under its title."""
    cell.imshow(image_HW3, interpolation="nearest")
    cell.set_title(title, fontsize=9)
    cell.axis("off")


def first_picture(page: Path, path: Path) -> Path:
    """Write the first picture of a page: that of the differences."""
    found = re.search(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page.read_text(encoding="utf-8"))
    assert found is not None
    with replacing(path) as temporary:
        temporary.write_bytes(base64.b64decode(found[1]))
    return path


if __name__ == "__main__":
    with torch.no_grad():
        main()
