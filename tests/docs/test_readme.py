"""Every command of README.md and of the pages on tasks runs, in its order, in one folder and on tiny data.

As a new user would type them.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from backbones.config import FAMILY
from backbones.vit import ViT
from backbones.weights.checkpoint import write_state
from backbones.weights.convert import write_as
from backbones.weights.declaration import InitialWeights
from backbones.weights.normalisation import IMAGENET
from backbones.weights.read import read_checkpoint
from scenes.classes import WORLDS
from scenes.layouts import ScenesIndex

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("docs/detection.md", "docs/segmentation.md")}

NOT_RUN = {
    "make setup": "downloads some GB of packages",
    "make doctor": "needs the .venv of the checkout; tests/bootstrap",
    "make demo": "takes a quarter of an hour; the commands of a study are run on a smaller one",
    "make test": "is what runs this",
    "source .venv/bin/activate": "changes the shell alone; tests run in that environment",
}
"""Commands that are left out, and why."""

SMALLER = {
    "vitdet_base": "tiny",
    "mae_base": "tiny",
    "mae_base_100ep": "tiny",
    "small": "tiny",
    "mae_base_linear": "tiny --protocol linear",
    "vit_base_patch16": "vit_demo_patch8",
    "--init-source mae": "--init-source mae --init-heads 6",  # of that ViT; ViT-B's are known by its width
    "demo": "small_study.yaml",
}
"""What stands in the place of a large recipe, ViT or study."""

ONE_STEP = ["--steps", "1", "--batch-size", "2"]
SHORTER = {
    "make_scenes": shlex.split(
        "--classify-train 16 --classify-val 8 --classify-test 8 --dense-train 16 --dense-val 4 --dense-test 2"
    ),
    **dict.fromkeys(("pretrain", "train_cls", "train_det", "train_seg"), ONE_STEP),
    "probe": ["--linear-epochs", "1"],
    "probe_dense": ["--linear-iterations", "1", "--memory", "100"],
    "reconstruct": ["--count", "1"],
}
"""Flags that a tool gets at the end, in the place of the README's own."""

STUDY = """
name: demo
seeds: [0]
arms:
  random: random
  mae: {init: runs/mae/backbone.safetensors}
compare: {claim: mae, against: random}
tasks:
  classification: {tool: train_cls, recipe: tiny, data: data/scenes/imagenet, steps: 1, batch_size: 2}
"""

HOSTS = ("classification.task", "detection.task", "segmentation.task", "pretraining.gallery", "engine.training.loop")


@dataclass(frozen=True)
class Command:
    """A command of a document."""

    line: int
    text: str
    """As it stands there; Python code where it is of a block of Python."""
    is_python: bool = False
    document: str = "README.md"
    shown: str = ""
    """What the document says it prints; empty where it says nothing."""

    @property
    def reason(self) -> str | None:
        """Why it is not run, or None."""
        return None if self.is_python else NOT_RUN.get(shlex.join(shlex.split(self.text, comments=True)))

    def argv(self) -> list[str]:
        """Return the tool, empty for Python code, and its arguments in small form.

        Raises ValueError for what is neither a tool nor among those left out.
        """
        if self.is_python:
            return ["", self.text]
        text = self.text
        for large, small in SMALLER.items():
            text = re.sub(rf"(?<!\S){re.escape(large)}(?!\S)", small, text)
        words = shlex.split(text, comments=True)
        if (
            words[0] != "python"
            or not re.fullmatch(r"(tools|docs)/\w+\.py", words[1])
            or not (ROOT / words[1]).exists()
        ):
            raise ValueError(f"{self.document}, line {self.line}: {self.text!r} is run by no test; name it in NOT_RUN")
        arguments, flags = words[2:], SHORTER.get(Path(words[1]).stem, [])
        for flag in flags[::2]:
            if flag in arguments:
                at = arguments.index(flag)
                del arguments[at : at + 2]
        return [words[1], *arguments, *flags]


def commands(text: str, document: str = "README.md") -> Iterator[Command]:
    """Yield the commands of a document's blocks, in order. Raises ValueError for a block of another language."""
    yield from (replace(command, document=document) for command in _commands(text))


def _commands(text: str) -> Iterator[Command]:
    for block in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        first = text.count("\n", 0, block.start(2)) + 1
        if block[1] == "python":
            yield Command(first, block[2], is_python=True)
        elif block[1] in ("", "bash"):
            yield from _shell(block[2], first)
        else:
            raise ValueError(f"line {first - 1}: no test runs a block of {block[1]!r}")


def _shell(block: str, first: int) -> Iterator[Command]:
    """Yield the commands of a shell block: its lines or, where some begin with `$`, these, and what they print."""
    if block.startswith("$ "):
        for session in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            text, _, shown = session.partition("\n")
            yield Command(first, text, shown=shown)
            first += session.count("\n")
        return
    for joined in re.finditer(r"(?:[^\n]*\\\n)*[^\n]*\n", block):
        if text := joined[0].replace("\\\n", " ").strip():
            yield Command(first + block.count("\n", 0, joined.start()), text)


def carried_out(found: Sequence[Command], folder: Path, *, imports: Sequence[str] = ()) -> list[str]:
    """Return what went wrong, an entry per command; they run in `folder`, which gets links to the tools."""
    for name in ("tools", "docs"):
        (folder / name).symlink_to(ROOT / name)
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/docs/run_commands.py"), *imports],
        input=json.dumps([command.argv() for command in found]),
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(found), done.stderr
    wrong = []
    for command, result in zip(found, results, strict=True):
        print(f"{result['seconds']:5.1f} s  {command.text.splitlines()[0]}")
        if result["code"] != 0:
            wrong.append(f"line {command.line}: {command.text}\n{result['text'][-3000:]}")
        elif command.shown and command.shown != result["text"]:
            wrong.append(f"line {command.line}: {command.text}\nprints\n{result['text']}")
    return wrong


def test_each_command_is_run_or_named() -> None:
    found = list(commands(README))
    left_out = [command.text.split("#")[0].strip() for command in found if command.reason]
    assert left_out == list(NOT_RUN)
    for command in found:
        assert command.reason or command.argv()


@pytest.mark.slow
def test_commands_run_in_order(few_scenes: ScenesIndex, tmp_path: Path) -> None:
    users_own_files(tmp_path, few_scenes)
    found = [command for command in commands(README) if not command.reason]
    pictures = Command(0, "python docs/make_pictures.py runs data/scenes --scene 000010000001 --out pictures/readme")
    wrong = carried_out([*found, pictures], tmp_path, imports=HOSTS)
    assert not wrong, "\n\n".join(wrong)
    made, kept = tmp_path / "pictures/readme", ROOT / "docs/pictures"
    assert {path.name for path in made.iterdir()} == {path.name for path in kept.iterdir()}


@pytest.mark.parametrize("page", PAGES)
def test_each_command_of_a_page_is_run(page: str) -> None:
    found = list(commands(PAGES[page], page))
    assert len(found) > 10 and all(command.argv() for command in found)


@pytest.mark.slow
@pytest.mark.parametrize("page", [pytest.param("docs/detection.md", marks=pytest.mark.sweep), "docs/segmentation.md"])
def test_commands_of_a_page_run_in_order(page: str, few_scenes: ScenesIndex, tmp_path: Path) -> None:
    users_own_files(tmp_path, few_scenes)
    wrong = carried_out(list(commands(PAGES[page], page)), tmp_path, imports=HOSTS)
    assert not wrong, "\n\n".join(wrong)


def users_own_files(folder: Path, scenes: ScenesIndex) -> None:
    """Write what the README takes from the user, in small form: data sets, downloaded weights, a study."""
    for name in ("imagenet", "coco", "ade20k"):
        (folder / name).symlink_to(scenes.root / name)
    (folder / "photographs").symlink_to(scenes.coco / "train2017")  # a flat folder
    (folder / "streets").symlink_to(scenes.ade20k)
    for split, name in (("training", "train"), ("validation", "val")):  # ADE20K's numbers, 0 named too
        for kind, ours in (("images", "images"), ("annotations", "labels")):
            (folder / "maps" / ours).mkdir(parents=True, exist_ok=True)
            (folder / "maps" / ours / name).symlink_to(scenes.ade20k / kind / split)
    (folder / "maps/classes.txt").write_text("\n".join(["other", *WORLDS["outdoor"].semantic_names]) + "\n")
    (folder / "imagenet-r").symlink_to(scenes.imagenet / "test")
    (folder / "imagenet-c/fog").mkdir(parents=True)
    (folder / "imagenet-c/fog/1").symlink_to(scenes.imagenet / "test")
    (folder / "cells/annotations").mkdir(parents=True)
    for name in ("train", "val"):
        (folder / "cells" / name).symlink_to(scenes.coco / f"{name}2017")
        annotations = scenes.coco / f"annotations/instances_{name}2017.json"
        (folder / f"cells/annotations/instances_{name}.json").symlink_to(annotations)
    (folder / "shown").mkdir()
    first = next((scenes.coco / "train2017").iterdir())
    (folder / "shown" / first.name).symlink_to(first)
    (folder / "shown/boxes.json").write_text(json.dumps([{"image": first.name, "box": [8, 8, 40, 40]}]))
    (folder / "masks").mkdir()
    Image.new("RGB", (8, 8), (255, 0, 0)).save(folder / "masks/a.png")
    (folder / "classes.txt").write_text("background\t#000000\ncell\t#ff0000\n")
    (folder / "small_study.yaml").write_text(STUDY)
    architecture = FAMILY["vit_demo_patch8"]
    own = folder / "own.safetensors"
    write_state(own, ViT(architecture).state_dict(), architecture=architecture, source="mae", normalisation=IMAGENET)
    checkpoint = read_checkpoint(InitialWeights(path=own))
    write_as(checkpoint, "mae", folder / "mae_pretrain_vit_base.pth")
    write_as(checkpoint, "timm", folder / "plain.safetensors")
    classes = len(list((scenes.imagenet / "val").iterdir()))
    head = {"head.weight": torch.zeros(classes, architecture.embed_dim), "head.bias": torch.zeros(classes)}
    save_file(load_file(folder / "plain.safetensors") | head, folder / "vit_with_head.safetensors")


def test_pictures_are_small_and_described() -> None:
    texts = {ROOT / name: text for name, text in (PAGES | {"README.md": README}).items()}
    named = [
        (words, page.parent / path)
        for page, text in texts.items()
        for words, path in re.findall(r"!\[([^]]*)\]\(([^)]+)\)", text)
    ]
    assert {path for _, path in named} == {*(ROOT / "docs/pictures").iterdir()}
    for described, path in named:
        assert len(described.split()) >= 8, path  # as many words as say what is seen
        assert path.stat().st_size < 300_000, path


def test_blocks_by_hand() -> None:
    shell = "```\npython tools/predict.py a \\\n  b  # c\n\nmake test\n```\n"
    text = f"a\n{shell}```python\nx = 1\n```\n```\n$ ls\na\nb\n```\n"
    assert list(commands(text)) == [
        Command(3, "python tools/predict.py a    b  # c"),
        Command(6, "make test"),
        Command(9, "x = 1\n", is_python=True),
        Command(12, "ls", shown="a\nb\n"),
    ]
    assert Command(1, "python tools/pretrain.py mae_base --steps 9 --out o  # c").argv() == [
        "tools/pretrain.py", "tiny", "--out", "o", "--steps", "1", "--batch-size", "2"
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no test runs a block of 'yaml'"):
        list(commands("```yaml\na: 1\n```\n"))
    with pytest.raises(ValueError, match=r"line 7: 'ls' is run by no test"):
        Command(7, "ls").argv()


def test_a_wrong_command_is_found(tmp_path: Path) -> None:
    flag = Command(1, "python tools/export_tables.py runs --formatt md")
    earlier = Command(2, "python tools/predict.py runs/not-made-yet photo.jpg")
    code = Command(3, "from mae_transfer import load_weights", is_python=True)
    other = Command(4, "python tools/plan_run.py --help", shown="usage: none\n")
    right = Command(5, "python tools/export_tables.py --help")
    wrong = carried_out([flag, earlier, code, other, right], tmp_path)
    assert [text.split(":")[0] for text in wrong] == ["line 1", "line 2", "line 3", "line 4"]
    assert "--formatt" in wrong[0] and "not-made-yet" in wrong[1] and "ImportError" in wrong[2]
