"""A user's own augmentation: what names a function, what it is given, and what is refused of it."""

import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.augment import Augment, ClassSample, DetectionSample, ImageSample, SegmentationSample, with_augment
from engine.config import as_json, differences
from engine.functions import load, source_of
from engine.training.seeding import derive, own_generator, seeded
from files.digest import file_sha256

FUNCTIONS = """
import functools
from os.path import join

def noise(sample, rng):
    sample.image = sample.image + rng.integers(0, 9, sample.image.shape, dtype="uint8")
    return sample

def alone(sample): ...
number = 3
partly = functools.partial(noise)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FUNCTIONS)
    return path


def test_what_a_record_says_of_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = file_sha256(file)
    assert source_of(f"{file}:noise") == f"mine:noise sha256:{digest}"
    package = file.parent / "own_package_of_a_test"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "inner.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(file.parent))
    name = "own_package_of_a_test.inner:noise"
    assert source_of(name) == f"{name} sha256:{digest}"
    assert load(name, source_of(name), 2).__name__ == "noise"
    for module in ("own_package_of_a_test", "own_package_of_a_test.inner"):
        sys.modules.pop(module, None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.py:f", r"gone\.py:f: .*gone\.py is no file"),
        ("no_such_module:f", r"Python finds no module no_such_module; install it or name its folder in PYTHONPATH"),
        ("no_such.module:f", r"Python finds no module no_such\.module"),
        ("mine.py:nois", r"has no nois; its functions are: alone, join, noise"),
        ("mine.py:alone", r"takes \(sample\), and is called with 2 arguments \(too many positional arguments\)"),
        ("mine.py:number", r"is a int, which cannot be called"),
        ("mine.py:join", r"is defined in .*posixpath.*, not in .*mine\.py, whose digest a record would state"),
        ("bad.py:f", r"bad\.py cannot be imported: SyntaxError: "),
        ("raises.py:f", r"raises\.py cannot be imported: KeyError: 'x'"),
        ("math:floor", r"math has no Python source"),
    ],
)
def test_what_names_no_function_is_refused_at_the_start(
    name: str, message: str, file: Path, toy_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file.parent / "bad.py").write_text("def f(:")
    (file.parent / "raises.py").write_text("{}['x']")
    monkeypatch.chdir(file.parent)
    run = replace(toy_config.run, augment_function=name)
    with pytest.raises(ValueError, match=f"^--augment-function {message}" if name[0] == "g" else message):
        with_augment(replace(toy_config, run=run))


@pytest.mark.parametrize("text", ["mine.py", "mine.py:", ":f", "mine.py:a b", "mine.py:f()"])
def test_a_text_that_names_nothing_is_no_configuration(text: str, toy_config: Any) -> None:
    with pytest.raises(ValueError, match=r"names no function; write FILE\.py:FUNCTION or package\.module:FUNCTION"):
        replace(toy_config.run, augment_function=text)


def test_where_it_lies_is_not_what_it_is(file: Path, toy_config: Any, tmp_path: Path) -> None:
    plain = as_json(toy_config)
    made = with_augment(replace(toy_config, run=replace(toy_config.run, augment_function=f"{file}:noise")))
    digest = file_sha256(file)
    assert differences(plain, as_json(made)) == [f"run.augment_source: None -> mine:noise sha256:{digest}"]
    (tmp_path / "moved").mkdir()
    moved = file.rename(tmp_path / "moved/mine.py")
    again = with_augment(replace(toy_config, run=replace(toy_config.run, augment_function=f"{moved}:noise")))
    assert differences(as_json(made), as_json(again)) == []
    moved.write_text(FUNCTIONS + "#")
    with pytest.raises(ValueError, match=r"its source has changed since the run began: mine:noise sha256:\w+ -> mine"):
        Augment(f"{moved}:noise", again.run.augment_source).check()


def test_a_loader_process_loads_it_by_itself(file: Path) -> None:
    augment = Augment(f"{file}:noise", source_of(f"{file}:noise"))
    augment.check()
    there = pickle.loads(pickle.dumps(augment))
    assert there._function is None
    with seeded(4):
        made = there(ImageSample(np.zeros((2, 2, 3), np.uint8)), "a.png").image
    rng = np.random.default_rng(derive(4, "augment", 1))
    assert np.array_equal(made, rng.integers(0, 9, (2, 2, 3), dtype="uint8"))


def test_the_generator_is_the_samples_own() -> None:
    def drawn(seed: int) -> tuple[list[float], list[float]]:
        with seeded(seed):
            own = [own_generator("augment").random() for _ in range(2)]
            return own, [torch.rand(1).item(), np.random.rand()]

    own, others = drawn(1)
    assert drawn(1) == (own, others) and own[0] != own[1] and not {*own} & {*drawn(2)[0]}
    with seeded(1):
        assert [torch.rand(1).item(), np.random.rand()] == others  # those of a run without the function
        with seeded(2):
            assert own_generator("augment").random() == drawn(2)[0][0]
        assert own_generator("augment").random() == own[0]


IMAGE = np.zeros((4, 6, 3), np.uint8)
BOXES = np.array([[0, 0, 2, 2], [1.5, 1, 6, 4]], np.float32)
MASKS = np.zeros((2, 4, 6), bool)
MASKS[0, :2, :2] = MASKS[1, 1:, 2:] = True
SAMPLES: dict[str, Callable[[], ImageSample]] = {
    "image": lambda: ImageSample(IMAGE.copy()),
    "class": lambda: ClassSample(IMAGE.copy(), 1),
    "map": lambda: SegmentationSample(IMAGE.copy(), np.zeros((4, 6), np.uint8)),
    "boxes": lambda: DetectionSample(IMAGE.copy(), BOXES.copy(), np.array([0, 2]), None),
    "masks": lambda: DetectionSample(IMAGE.copy(), BOXES.copy(), np.array([0, 2]), MASKS.copy()),
}


def asked(kind: str, change: Callable[[Any, Any], Any]) -> Any:
    augment = Augment("mine.py:f", "", change)
    return augment(SAMPLES[kind](), "cat/1.png", classes=3)


def with_(**values: Any) -> Callable[[Any, Any], Any]:
    return lambda sample, rng: replace(sample, **values)


def mask_at(row: int, column: int) -> np.ndarray:
    masks = MASKS.copy()
    masks[0, row, column] = True
    return masks


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("image", lambda sample, rng: None, "returned None; return the ImageSample"),
        ("class", lambda sample, rng: sample.image, "returned an array of uint8 (4, 6, 3); return the ClassSample"),
        ("class", lambda sample, rng: ImageSample(IMAGE), "returned a ImageSample; return the ClassSample"),
        ("image", lambda sample, rng: 1 / 0, "it raised ZeroDivisionError: division by zero"),
        (
            "image",
            with_(image=IMAGE / 255),
            "its image is an array of float64 (4, 6, 3), not an array of uint8 (4, 6, ",
        ),
        ("image", with_(image=IMAGE[:3]), "its image is an array of uint8 (3, 6, 3), not an array of uint8 (4, 6, 3)"),
        ("image", with_(image=torch.zeros(1)), "its image is a Tensor, not an array of uint8 (4, 6, 3)"),
        ("class", with_(label=3), "its label is 3, not a whole number from 0 to 2"),
        ("class", with_(label=-1), "its label is -1, not a whole number from 0 to 2"),
        ("class", with_(label=0.5), "its label is 0.5, not a whole number from 0 to 2"),
        (
            "map",
            with_(label_map=np.zeros((4, 6))),
            "its label_map is an array of float64 (4, 6), not an array of uint8",
        ),
        ("map", with_(label_map=np.zeros((6, 4), np.uint8)), "its label_map is an array of uint8 (6, 4), not an array"),
        (
            "map",
            with_(label_map=np.where(np.arange(24).reshape(4, 6) == 13, 3, 255).astype(np.uint8)),
            "its label_map is 3 at row 2, column 1; give 0 to 2, or 255 (ignored)",
        ),
        (
            "boxes",
            with_(boxes=BOXES.astype(float)),
            "its boxes are an array of float64 (2, 4), not an array of float32 ",
        ),
        ("boxes", with_(boxes=BOXES[:1]), "its labels are an array of int64 (2,), not an array of int64 (1,), one for"),
        ("boxes", with_(labels=np.array([0, 3])), "its labels[1] is 3, not from 0 to 2"),
        (
            "boxes",
            with_(boxes=BOXES + np.float32([1, 0, 1, 0])),
            "its boxes[1] is [2.5, 1.0, 7.0, 4.0], not left < right within 0 to 6 and top < bottom within 0 to 4 (the "
            "image has 6 x 4 pixels); clip it, or leave the object out",
        ),
        ("boxes", with_(boxes=BOXES * np.float32(np.nan)), "its boxes[0] is [nan, nan, nan, nan], not left < right"),
        ("boxes", with_(boxes=BOXES[:, [2, 1, 0, 3]]), "its boxes[0] is [2.0, 0.0, 0.0, 2.0], not left < right"),
        ("boxes", with_(masks=MASKS), "its masks are an array of bool (2, 4, 6), and it was given None; leave it"),
        ("masks", with_(masks=None), "its masks are None, not an array of bool (2, 4, 6), one for each box"),
        ("masks", with_(masks=MASKS * 1), "its masks are an array of int64 (2, 4, 6), not an array of bool"),
        ("masks", with_(masks=MASKS & False), "its masks[0] has no pixel; leave the object out"),
        (
            "masks",
            with_(masks=mask_at(0, 3)),
            "its masks[0] spans [0, 0, 4, 2], beyond its box [0.0, 0.0, 2.0, 2.0]; move boxes and masks alike",
        ),
    ],
)
def test_what_it_returns_is_checked(kind: str, change: Callable[[Any, Any], Any], message: str) -> None:
    with pytest.raises(ValueError) as refused:
        asked(kind, change)
    assert str(refused.value).startswith(f"--augment-function mine.py:f: cat/1.png: {message}")
    assert "\n" not in str(refused.value)  # of a loader process the last line alone is shown


@pytest.mark.parametrize("kind", SAMPLES)
def test_what_may_be_returned(kind: str) -> None:
    same = asked(kind, lambda sample, rng: sample)
    assert np.array_equal(same.image, IMAGE)
    if kind in ("boxes", "masks"):  # objects may go, all of them too
        none: dict[str, Any] = {"boxes": BOXES[:0], "labels": np.zeros(0, np.int64)}
        none |= {"masks": MASKS[:0]} if kind == "masks" else {}
        assert len(asked(kind, with_(**none)).boxes) == 0
    if kind == "masks":  # a pixel beyond is the rounding of annotations
        assert asked(kind, with_(masks=mask_at(0, 2))).masks.sum() == MASKS.sum() + 1
    if kind == "class":
        assert asked(kind, with_(label=np.int64(2))).label == 2
