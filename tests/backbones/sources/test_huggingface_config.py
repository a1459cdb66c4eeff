"""config.json and preprocessor_config.json beside a transformers file: told, compared with the weights, refused."""

import json
from functools import partial
from pathlib import Path

import pytest
from transformers import ViTConfig, ViTModel

from backbones.weights.declaration import InitialWeights
from backbones.weights.normalisation import HALF, Normalisation
from backbones.weights.read import read_checkpoint

DECLARED = partial(InitialWeights, source="huggingface")
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "image_size": 32,
    "patch_size": 8,
    "layer_norm_eps": 1e-6,
}
CONSTANTS = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """The file of a tiny ViT, its config.json beside it."""
    ViTModel(ViTConfig(**TINY)).save_pretrained(tmp_path)
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "config.json beside it is no JSON"),
        ("[]", "config.json beside it holds no JSON object"),
        ('{"hidden_size": 64}', "hidden_size 64, and the weights show 32; it is of another model"),
        ('{"num_hidden_layers": 3}', "num_hidden_layers 3, and the weights show 2"),
        ('{"num_channels": 1}', "num_channels 1, and the weights show 3"),
        ('{"intermediate_size": 64}', "intermediate_size 64, and the weights show 128"),
        ('{"patch_size": 16}', r"patch_size 16, and the weights show \[8, 8\]"),
        ('{"patch_size": [8, 16]}', r"patch_size \[8, 16\], and the weights show \[8, 8\]"),
        ('{"patch_size": true}', "patch_size True, and the weights show"),
        ('{"hidden_act": "gelu_new"}', "hidden_act 'gelu_new'; the ViT here has an exact GELU"),
        ('{"num_attention_heads": "4"}', "num_attention_heads '4', which is no number of heads"),
        ('{"num_attention_heads": true}', "num_attention_heads True, which is no number of heads"),
        ('{"num_attention_heads": 0}', "num_attention_heads 0, which is no number of heads"),
        ('{"num_attention_heads": 5}', "embed_dim 32 is not divisible by num_heads 5"),
        ('{"image_size": [32]}', r"image_size \[32\], which is no height and width"),
        ('{"image_size": [32, true]}', r"image_size \[32, True\], which is no height and width"),
        ('{"image_size": 4}', "image_size 4, which is no height and width of a patch or more"),
        (
            '{"image_size": 64, "num_attention_heads": 4}',
            r"position table has 17 rows, and 64 x 64 pixels in patches of 8 need 1 \+ 64",
        ),
    ],
)
def test_refused_config(content: str, message: str, weights: Path) -> None:
    weights.with_name("config.json").write_text(content)
    with pytest.raises(ValueError, match=rf"model\.safetensors: .*{message}"):
        read_checkpoint(DECLARED(path=weights))


@pytest.mark.parametrize("changes", [{"patch_size": [8, 8]}, {"image_size": [32, 32]}, {"image_size": 37}])
def test_other_ways_to_say_the_same(changes: dict[str, object], weights: Path) -> None:
    """transformers takes two numbers for one, and leaves out the pixels that make no whole patch."""
    weights.with_name("config.json").write_text(json.dumps({**TINY, **changes}))
    architecture = read_checkpoint(DECLARED(path=weights)).architecture
    assert (architecture.num_heads, architecture.image_size, architecture.patch_size) == (4, (32, 32), 8)


def test_a_declaration_against_the_config(weights: Path) -> None:
    with pytest.raises(
        ValueError, match="num_heads was declared as 2, and the file tells 4; leave the declaration out"
    ):
        read_checkpoint(InitialWeights(path=weights, source="huggingface", num_heads=2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_mean": 0.5}, r"has image_mean 0\.5, which is no list of a number for each of 3 channels"),
        ({"image_mean": [0.5]}, r"has image_mean \[0\.5\], which is no list"),
        ({"image_std": None}, "has image_std None, which is no list"),
        ({"image_std": [0.5, 0, 0.5]}, "pixels are divided by it, so it must be above 0"),
        ({"image_mean": ["a", "b", "c"]}, "it must be finite numbers, one per channel"),
        ({"do_rescale": False}, "has do_rescale False; pixels here are RGB, scaled to 0..1 and normalised"),
        (
            {"do_normalize": False},
            r"has do_normalize False; .* \(0 and 1 for pixels from 0 to 1\), do_normalize as true",
        ),
        ({"do_flip_channel_order": True}, "has do_flip_channel_order True; .*do_flip_channel_order as false"),
        ({"rescale_factor": 1 / 127.5}, r"has rescale_factor 0\.00784.*; pixels here are scaled by 1/255"),
        ({"rescale_factor": 1}, "has rescale_factor 1; pixels here are scaled by 1/255"),
        ({"rescale_factor": "1/255"}, "has rescale_factor '1/255'; pixels here are scaled by 1/255"),
    ],
)
def test_refused_pixels(changes: dict[str, object], message: str, weights: Path) -> None:
    weights.with_name("preprocessor_config.json").write_text(json.dumps({**CONSTANTS, **changes}))
    with pytest.raises(ValueError, match=rf"model\.safetensors: .*{message}"):
        read_checkpoint(DECLARED(path=weights))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255, "do_flip_channel_order": False},
        {"rescale_factor": 0.003922, "do_rescale": None},
    ],
)
def test_constants_are_taken(changes: dict[str, object], weights: Path) -> None:
    weights.with_name("preprocessor_config.json").write_text(json.dumps({**CONSTANTS, **changes}))
    checkpoint = read_checkpoint(DECLARED(path=weights))
    assert checkpoint.normalisation == Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)) and checkpoint.notes == ()


def test_a_preprocessor_without_constants_is_noted(weights: Path) -> None:
    weights.with_name("preprocessor_config.json").write_text('{"size": 32}')
    checkpoint = read_checkpoint(DECLARED(path=weights))
    assert checkpoint.normalisation == HALF
    assert checkpoint.notes == (
        "normalisation by 0.5: usual for such names, no preprocessor_config.json beside the file says it",
    )
