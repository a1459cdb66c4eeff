"""Make the pictures of README.md and of the pages on detection and segmentation, from runs on the embedded scenes.

    python tools/make_scenes.py --out data/scenes --classify-train 4000 --dense-train 1000 --dense-val 60
    python tools/pretrain.py tiny --data data/scenes/imagenet --steps 600 --out runs/mae
    python tools/train_det.py tiny --data data/scenes/coco --init runs/mae/backbone.safetensors \\
        --steps 900 --out runs/det
    python tools/train_seg.py tiny --data data/scenes/ade20k --init runs/mae/backbone.safetensors \\
        --steps 600 --out runs/seg
    python tools/probe_dense.py vit_demo_patch8 --data data/scenes/ade20k --init runs/mae/backbone.safetensors \\
        --image-size 128 128 --memory 5000 --out runs/patches
    python tools/in_context.py vit_demo_patch8 --data data/scenes/coco --init runs/mae/backbone.safetensors \\
        --image-size 128 128 --queries-per-class 4 --out runs/found
    python docs/make_pictures.py runs data/scenes

Writes docs/pictures/scene.png from the runs RUNS/mae, RUNS/det and RUNS/seg, detection.png and segmentation.png from
the latter two on the first validation scenes, patches.png and by_example.png from the pages that the probes
RUNS/patches and RUNS/found drew, and differences.png from the page of studies/tiny_imagenet_half.
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
from segmentation.probe.pictures import GAP, MOST_IMAGES, SIDE

WORLD = WORLDS["outdoor"]
FIRST = 1  # ADE20K's label maps count classes from 1
ROOT = Path(__file__).resolve().parents[1]
PANEL = 2.3  # inches
CELL = 144  # pixels of a side: nine of each patch
COLUMNS = 4  # validation scenes of a page's picture: the first ones, whatever is said of them


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags of the pictures."""

    runs: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUNS")]
    """Folder of the runs mae, det and seg, and of the probes patches and found."""
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
    print(draw_detection(args.out / "detection.png", args))
    print(draw_segmentation(args.out / "segmentation.png", args))
    page = args.runs / "patches/knn_segmentation/pictures/patches.png"
    print(turned(page, args.out / "patches.png", args.scenes))
    print(middle_rows(args.runs / "found/in_context/pictures/in_context.png", args.out / "by_example.png"))
    print(first_picture(ROOT / "studies/tiny_imagenet_half/report.html", args.out / "differences.png"))


def draw_scene(path: Path, args: Args) -> Path:
    """Write one scene as each run sees it (above), and what is right (below)."""
    image = args.scenes / "coco/val2017" / f"{args.scene}.jpg"
    image_HW3 = np.asarray(read_rgb(image))
    figure = Figure(figsize=(4 * PANEL, 2 * PANEL + 0.75), layout="constrained")
    cells = figure.subplots(2, 4)
    masked, reconstructed = reconstruction(args.runs / "mae", image, args.seed)
    found = load_run(args.runs / "det").predict([image])[0]["detections"]
    classes_HW = from_values(load_run(args.runs / "seg").predict([image])[0]) + FIRST
    truth, names = annotations(args.scenes / "coco/annotations/instances_val2017.json", image.name)
    labels_HW = label_map(args.scenes, args.scene)

    colours = class_colours(WORLD)
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
    patches = legend([classes_HW, labels_HW])
    cells[1, 0].legend(handles=patches, loc="center", fontsize=9, frameon=False, title="classes")
    write_figure(figure, path)
    return path


def draw_detection(path: Path, args: Args) -> Path:
    """Write the first validation scenes with what is annotated (above) and what is detected (below)."""
    images = first_scenes(args.scenes)
    figure = Figure(figsize=(COLUMNS * PANEL, 2 * PANEL + 0.5), layout="constrained")
    cells = figure.subplots(2, COLUMNS, squeeze=False)
    for column, (image, said) in enumerate(zip(images, load_run(args.runs / "det").predict(images), strict=True)):
        truth, names = annotations(args.scenes / "coco/annotations/instances_val2017.json", image.name)
        found = [item for item in said["detections"] if item["score"] >= MIN_SCORE]
        for cell, objects, title in zip(cells[:, column], (truth, found), ("annotated", "detected"), strict=True):
            draw_objects(cell, np.asarray(read_rgb(image)), objects, names=names)
            cell.set_title(f"{title}: {len(objects)}", fontsize=9)
    write_figure(figure, path)
    return path


def draw_segmentation(path: Path, args: Args) -> Path:
    """Write the first validation scenes (above) with their label maps and the predicted classes."""
    images = first_scenes(args.scenes)
    colours = class_colours(WORLD)
    figure = Figure(figsize=(COLUMNS * PANEL, 3 * PANEL + 1.1), layout="constrained")
    cells = figure.subplots(3, COLUMNS, squeeze=False)
    shown = []
    for column, (image, said) in enumerate(zip(images, load_run(args.runs / "seg").predict(images), strict=True)):
        maps = label_map(args.scenes, image.stem), from_values(said) + FIRST
        show(cells[0, column], np.asarray(read_rgb(image)), "image")
        for cell, classes_HW, title in zip(cells[1:, column], maps, ("annotated", "predicted"), strict=True):
            show(cell, colours[classes_HW], title)
        shown += maps
    figure.legend(handles=legend(shown), loc="outside lower center", ncols=8, fontsize=8, frameon=False)
    write_figure(figure, path)
    return path


def turned(page: Path, path: Path, scenes: Path) -> Path:
    """Write a page of patches smaller, with the images from left to right; the tool has them one below the other."""
    with Image.open(page) as file:
        drawn = file.convert("RGB")
    count = min(MOST_IMAGES, len(list((scenes / "ade20k/images/validation").iterdir())))
    step, cell = SIDE + GAP, CELL + GAP  # scenes are square
    made = Image.new("RGB", (count * cell - GAP, 3 * cell - GAP), "white")
    for number in range(count):
        for what, smooth in enumerate((Image.Resampling.LANCZOS, Image.Resampling.NEAREST, Image.Resampling.NEAREST)):
            left, top = what * step, number * step
            part = drawn.crop((left, top, left + SIDE, top + SIDE)).resize((CELL, CELL), smooth)
            made.paste(part, (number * cell, what * cell))
    return saved(made, path)


def middle_rows(page: Path, path: Path) -> Path:
    """Write the third to the fifth query of a page of six masks by example, which are of equal height."""
    with Image.open(page) as file:
        drawn = file.convert("RGB")
    top, bottom = (round(drawn.height * row / 6) for row in (2, 5))
    return saved(drawn.crop((0, top, drawn.width, bottom)), path)


def saved(picture: Image.Image, path: Path) -> Path:
    """Write a picture in as few bytes as PNG takes."""
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)
    return path


def first_scenes(scenes: Path) -> list[Path]:
    """Return the first validation images."""
    return sorted((scenes / "coco/val2017").glob("*.jpg"))[:COLUMNS]


def label_map(scenes: Path, stem: str) -> Any:
    """Return the label map of a validation scene."""
    with Image.open(scenes / "ade20k/annotations/validation" / f"{stem}.png") as file:
        return np.asarray(file)


def legend(maps: list[Any]) -> list[Patch]:
    """Return the colours and names of the classes that occur."""
    seen = sorted({number for classes_HW in maps for number in np.unique(classes_HW)})
    names = ["not labelled", *WORLD.semantic_names]
    colours = class_colours(WORLD)
    last = sorted(seen, key=lambda number: number == 0)
    return [Patch(facecolor=colours[number] / 255, label=names[number]) for number in last]


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
    """Write the first picture of a page in its wide form: that of the differences."""
    found = re.search(r'<img src="data:image/png;base64,([A-Za-z0-9+/=]+)', page.read_text(encoding="utf-8"))
    assert found is not None
    with replacing(path) as temporary:
        temporary.write_bytes(base64.b64decode(found[1]))
    return path


if __name__ == "__main__":
    with torch.no_grad():
        main()
