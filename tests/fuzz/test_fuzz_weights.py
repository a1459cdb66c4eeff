"""Weight files of every family with names, shapes, widths, nesting, headers or bytes changed.

What is accepted must load into the ViT of the whole file with its tensors, or the report names what differs.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from backbones.vit import ViT
from backbones.weights.checkpoint import FORMAT, Checkpoint
from backbones.weights.declaration import InitialWeights
from backbones.weights.inspect import inspect_file
from backbones.weights.loader import LoadReport, load_checkpoint
from tests.weight_samples import HEADS, Sample

CASES = 400
PREFIXES = ("_orig_mod.", "module.", "model.", "backbone.", "encoder.", "student.", "teacher.", "net.", "")
ENTRIES = ("model", "state_dict", "module", "teacher", "student", "model_ema", "weights")
WIDTHS = (torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int64, torch.complex64, torch.bool)
WITHOUT_CHECKSUMS = ("timm", "huggingface")  # safetensors of others
Tensors = dict[str, Any]


def rename_one(rng: random.Random, tensors: Tensors) -> Tensors:
    old, other = rng.choice(list(tensors)), rng.choice(list(tensors))
    new = rng.choice(
        (
            rng.choice(PREFIXES) + old,
            old + rng.choice(("_", ".0", "s", ".weight")),
            old.replace("0", "1"),
            old.replace("1", "2"),
            old.replace("0", "00"),
            old.replace(".weight", ".bias"),
            old.upper(),
            other,
            old.partition(".")[2] or old,
            "norm.weight",
            "fc_norm.weight",
            "head.weight",
            "",
            "a\nb",
            "x" * 300,
        )
    )
    # another tensor under a name that is there is another file, which nobody can see
    rest = {name: tensor for name, tensor in tensors.items() if name != old}
    return rest if new in rest else rest | {new: tensors[old]}


def rename_all(rng: random.Random, tensors: Tensors) -> Tensors:
    before = "".join(rng.choice(PREFIXES) for _ in range(rng.randrange(1, 4)))
    some = rng.random() < 0.2
    return {name if some and rng.random() < 0.1 else before + name: tensor for name, tensor in tensors.items()}


def drop(rng: random.Random, tensors: Tensors) -> Tensors:
    chosen = rng.choice(list(tensors))
    # one, all of its kind, or all of its block
    parts = chosen.split(".")
    tests: list[Callable[[str], bool]] = [
        lambda name: name == chosen,
        lambda name: name.endswith("." + parts[-1]) if len(parts) > 1 else name == chosen,
        lambda name: name.split(".")[-2:] == parts[-2:],
        lambda name: name.split(".")[:2] == parts[:2],
        lambda name: name.endswith(("pos_embed", "position_embeddings", "_table", "pos_embedding")),
        lambda name: name.endswith(("cls_token", "cls")),
    ]
    gone = rng.choice(tests)
    return {name: tensor for name, tensor in tensors.items() if not gone(name)}


def reshape(rng: random.Random, tensors: Tensors) -> Tensors:
    name = rng.choice(list(tensors))
    tensor = tensors[name]
    shapes: list[Callable[[Tensor], Tensor]] = [
        lambda t: t[:-1] if t.ndim else t,
        lambda t: t.flatten(),
        lambda t: t[None],
        lambda t: torch.cat([t, t]) if t.ndim else t,
        lambda t: t.mT if t.ndim > 1 else t[:0] if t.ndim else t,
        lambda t: t[:, 1:] if t.ndim > 1 else t,
        lambda t: t.new_zeros(()),
        lambda t: t.new_zeros(1, *t.shape[1:]) if t.ndim else t,
    ]
    changed = rng.choice(shapes)(tensor).contiguous()
    # other values in the same shape are another file, which nobody can see
    return tensors if changed.shape == tensor.shape else tensors | {name: changed}


def retype(rng: random.Random, tensors: Tensors) -> Tensors:
    width = rng.choice(WIDTHS)
    names = list(tensors) if rng.random() < 0.4 else [rng.choice(list(tensors))]
    return tensors | {name: tensors[name].to(width) for name in names if tensors[name].is_floating_point()}


def add(rng: random.Random, tensors: Tensors) -> Tensors:
    values = (torch.ones(8), torch.ones(()), torch.zeros(0), 3, None, "text", [1.0], {"a": torch.ones(2)})
    names = (
        "n_averaged",
        "loss.weight",
        "dist_token",
        "mask_token",
        "blocks.7.norm1.weight",
        "norm.weight",
        "ln1.bias",
    )
    return {rng.choice((*names, rng.choice(list(tensors)) + "_2")): rng.choice(values)} | tensors


def spoil(rng: random.Random, tensors: Tensors) -> Tensors:
    name = rng.choice(list(tensors))
    spoilt = tensors[name].clone().float()
    if spoilt.numel():
        spoilt.view(-1)[rng.randrange(spoilt.numel())] = rng.choice((float("nan"), float("inf"), float("-inf")))
    return tensors | {name: spoilt}


CHANGES = (rename_one, rename_all, drop, drop, reshape, retype, add, spoil)


def nest(rng: random.Random, sample: Sample) -> dict[str, Any]:
    """The tensors in another entry, in two, or with something else beside them."""
    tensors = sample.tensors
    return rng.choice(
        (
            lambda: dict(tensors),
            lambda: {rng.choice(ENTRIES): tensors},
            lambda: {rng.choice(ENTRIES): tensors, "epoch": 3, "pytorch-lightning_version": "2.5"},
            lambda: {rng.choice(ENTRIES): {rng.choice(ENTRIES): tensors}},
            lambda: {**tensors, "optimizer": {"state": {}}},
            lambda: {rng.choice(ENTRIES): tensors, rng.choice(ENTRIES): {"extra": torch.ones(2)}},
            lambda: {rng.choice(ENTRIES): list(tensors.items())},
            lambda: {3: tensors, "model": None},
        )
    )()


@pytest.fixture
def clean(samples: dict[str, Sample], tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Checkpoint, ViT]]:
    """By source, what the whole file is, and the ViT that holds it."""
    folder = tmp_path_factory.mktemp("whole")
    found = {}
    for name, sample in samples.items():
        checkpoint = sample.read(sample.write(folder / name))
        vit = vit_for(checkpoint)
        load_checkpoint(vit, checkpoint)
        found[name] = checkpoint, vit
    return found


def vit_for(checkpoint: Checkpoint) -> ViT:
    state = checkpoint.state
    return ViT(checkpoint.architecture, class_token="cls_token" in state, final_norm="norm.weight" in state)


def load_like(clean: tuple[Checkpoint, ViT], checkpoint: Checkpoint, *, exact: bool) -> None:
    """Load into the ViT of the whole file. AssertionError where a tensor is another one and the report is silent."""
    whole, right = clean
    vit = vit_for(whole)
    report = load_checkpoint(vit, checkpoint)
    for name, wanted in right.state_dict().items():
        found = vit.state_dict()[name]
        same = torch.equal(found, wanted) if exact else torch.allclose(found, wanted, rtol=0.02, atol=0.02)
        assert same or is_said(name, report), f"{name} is another one, and nothing says so"
    assert checkpoint.normalisation == whole.normalisation or any("normalisation" in n for n in checkpoint.notes)
    assert checkpoint.architecture.num_heads == whole.architecture.num_heads


def is_said(name: str, report: LoadReport) -> bool:
    return any(item.startswith(name) for items in (report.resized, report.new, report.notes) for item in items)


def check_inspection(path: Path) -> None:
    """What is named as a source loads the file with what is printed; where none is, the reason is said."""
    found = inspect_file(InitialWeights(path=path, num_heads=HEADS))
    found.lines()
    assert found.failure or found.candidates
    for name, candidate in found.candidates.items():
        read = Sample(name, {}).read(path)
        assert read.architecture == candidate.architecture
        load_checkpoint(vit_for(read), read)


def test_weights(campaign: Any, samples: dict[str, Sample], clean: Any, damaged_bytes: Any, tmp_path: Path) -> None:
    def case(rng: random.Random) -> tuple[Sample, Path, bool, bool]:
        sample = samples[rng.choice(list(samples))]
        path, exact = tmp_path / "case", True
        kind = rng.random()
        for old in tmp_path.glob("case*"):
            old.unlink()
        if kind < 0.1 and sample.source not in WITHOUT_CHECKSUMS:
            written = sample.write(path)
            content = damaged_bytes(rng, written.read_bytes())
            written.unlink()
            written.write_bytes(content)
            return sample, written, True, rng.random() < 0.15
        for _ in range(rng.choice((1, 1, 2))):
            change = rng.choice(CHANGES)
            exact = exact and change is not retype
            try:
                sample = sample.with_tensors(change(rng, sample.tensors))
            except (RuntimeError, AttributeError, TypeError, IndexError):  # a change of what is no number
                continue
        written = path.with_name("case.pth")
        torch.save(nest(rng, sample) if kind > 0.8 else sample.content, written)
        return sample, written, exact, rng.random() < 0.15

    def read(given: tuple[Sample, Path, bool, bool]) -> None:
        sample, path, exact, inspected = given
        if inspected:
            check_inspection(path)
        load_like(clean[sample.source], sample.read(path), exact=exact)

    campaign.run(case, read, cases=CASES, names="case")


def test_headers_of_ours(
    campaign: Any, samples: dict[str, Sample], clean: Any, damaged_json: Any, tmp_path: Path
) -> None:
    """Without its checksum, so that the damage reaches what reads the header."""
    whole = samples["own"]
    header = json.loads(header_of(whole.write(tmp_path / "whole")))
    del header["crc32"]

    def case(rng: random.Random) -> Path:
        path = tmp_path / f"case-{rng.random()}.safetensors"
        for old in tmp_path.glob("case*"):
            old.unlink()
        save_file(whole.content, path, metadata={FORMAT: damaged_json(rng, header).decode(errors="replace")})
        return path

    def read(path: Path) -> None:
        checkpoint = whole.read(path)
        load_checkpoint(vit_for(clean["own"][0]), checkpoint)
        assert all(torch.equal(checkpoint.state[name], tensor) for name, tensor in clean["own"][0].state.items())

    campaign.run(case, read, cases=CASES // 2, names="case")


def header_of(path: Path) -> str:
    with safe_open(path, framework="pt") as file:
        return str(file.metadata()[FORMAT])
