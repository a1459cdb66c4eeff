"""Single bits of weight files flipped: a message with the file's name, or the tensors of the whole file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from backbones.vit import ViT
from backbones.weights.loader import load_checkpoint
from pretraining.tokenizer.file import TokenizerHeader, read_tokenizer, write_tokenizer
from pretraining.tokenizer.model import DiscreteVAE

CASES = 150


def equal(found: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return found.keys() == right.keys() and all(torch.equal(found[name], tensor) for name, tensor in right.items())


def loaded(sample: Any, path: Path) -> Callable[[], dict[str, Tensor]]:
    """What reads the file into a ViT."""

    def use() -> dict[str, Tensor]:
        checkpoint = sample.read(path)
        vit = ViT(checkpoint.architecture)
        load_checkpoint(vit, checkpoint)
        pixels = torch.tensor([checkpoint.normalisation.mean, checkpoint.normalisation.std])
        return {**vit.state_dict(), "heads": torch.tensor(checkpoint.architecture.num_heads), "pixels": pixels}

    return use


@pytest.mark.parametrize("source", ["own", "mae", "augreg"])  # safetensors of ours, PyTorch's zip, NumPy's
def test_flips_of_weights(source: str, samples: dict[str, Any], flips: Any, tmp_path: Path) -> None:
    path = samples[source].write(tmp_path / "weights")
    outcomes = flips.run([path], loaded(samples[source], path), cases=CASES, equal=equal)
    assert outcomes["refused"] > 0.5 * sum(outcomes.values())  # a zip has names, times and padding


def test_flips_of_a_tokenizer(flips: Any, tmp_path: Path) -> None:
    sizes = {"vocabulary": 4, "downsampling": 4, "code_dim": 3, "width": 4}
    path = tmp_path / "tokenizer.safetensors"
    write_tokenizer(path, DiscreteVAE(**sizes), TokenizerHeader(**sizes, image_size=(8, 8)))
    outcomes = flips.run([path], lambda: read_tokenizer(path).model.state_dict(), cases=CASES, equal=equal)
    assert outcomes["refused"] > 0.5 * sum(outcomes.values())  # a zip has names, times and padding
