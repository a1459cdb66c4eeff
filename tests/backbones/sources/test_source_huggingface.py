"""transformers' files: tokens, loss and reconstruction equal to its models, and files that from_pretrained takes."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoImageProcessor,
    BeitConfig,
    BeitForImageClassification,
    BeitForMaskedImageModeling,
    BeitModel,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTMAEModel,
    ViTModel,
)

from backbones.sources.source import DECODER
from backbones.vit import ViT
from backbones.weights.checkpoint import Checkpoint
from backbones.weights.convert import write_as
from backbones.weights.declaration import InitialWeights
from backbones.weights.loader import load_checkpoint
from backbones.weights.normalisation import HALF, IMAGENET, Normalisation
from backbones.weights.read import read_checkpoint
from pretraining.mae.model import MaskedAutoencoder

Spelling = Literal["hub", "version 5 saved", "version 5 in memory"]
SPELLINGS: tuple[Spelling, ...] = ("hub", "version 5 saved", "version 5 in memory")

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
DECODER_SIZES = {
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 16,  # MAE's: no tensor tells them
    "decoder_intermediate_size": 128,
}
# float64 forwards of float32 weights: what is left of two orders of summing
TOLERANCE = 1e-11


def vit_mae() -> PreTrainedModel:
    return ViTMAEForPreTraining(ViTMAEConfig(**TINY, **DECODER_SIZES, norm_pix_loss=True))


def vit_mae_encoder() -> PreTrainedModel:
    return ViTMAEModel(ViTMAEConfig(**TINY, mask_ratio=0.0))


def vit() -> PreTrainedModel:
    return ViTModel(ViTConfig(**TINY))


def vit_classifier() -> PreTrainedModel:
    return ViTForImageClassification(ViTConfig(**TINY, num_labels=5))


def beit_pretrained() -> PreTrainedModel:
    shared = {"use_shared_relative_position_bias": True, "use_mask_token": True}
    return BeitForMaskedImageModeling(BeitConfig(**TINY, **shared, vocab_size=7))


def beit() -> PreTrainedModel:
    return BeitModel(BeitConfig(**TINY, use_relative_position_bias=True, use_mean_pooling=False))


def beit_with_positions() -> PreTrainedModel:
    return BeitModel(BeitConfig(**TINY, use_absolute_position_embeddings=True, layer_scale_init_value=0.0))


def beit_classifier() -> PreTrainedModel:
    return BeitForImageClassification(BeitConfig(**TINY, use_relative_position_bias=True, num_labels=5))


def randomised(model: PreTrainedModel) -> PreTrainedModel:
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return model.eval()


def written(model: PreTrainedModel, folder: Path, spelling: Spelling = "hub") -> Path:
    """The model in a folder as its users have it, config.json beside the weights; returns the weights' path."""
    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    if spelling == "hub":
        names = {name: name.replace("decoder_encoder.layer.", "decoder_layers.") for name in load_file(path)}
        save_file({names[name]: tensor.clone() for name, tensor in load_file(path).items()}, path, {"format": "pt"})
    elif spelling == "version 5 in memory":
        path.unlink()
        path = folder / "state.pth"
        torch.save(model.state_dict(), path)
    return path


def image() -> Tensor:
    return torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def tokens_of(checkpoint: Checkpoint, pixels: Tensor) -> Tensor:
    ours = ViT(checkpoint.architecture, final_norm="norm.weight" in checkpoint.state).double()
    load_checkpoint(ours, checkpoint)
    with torch.no_grad():
        return ours(pixels)


def expected_tokens(model: PreTrainedModel) -> Tensor:
    """What the model's encoder gives, by the norm that the file holds for it."""
    model = model.double()
    with torch.no_grad():
        if isinstance(model, BeitForMaskedImageModeling):
            return model.layernorm(model.beit(image()).last_hidden_state)
        base = model.base_model
        if isinstance(base, ViTMAEModel):  # noise in order, so that nothing is shuffled
            return base(image(), noise=torch.arange(16.0, dtype=torch.float64).expand(2, -1)).last_hidden_state
        return base(image()).last_hidden_state


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(
    "make", [vit_mae_encoder, vit, vit_classifier, beit_pretrained, beit, beit_with_positions, beit_classifier]
)
def test_tokens_equal(make: Callable[[], PreTrainedModel], spelling: Spelling, tmp_path: Path) -> None:
    model = randomised(make())
    checkpoint = read_checkpoint(DECLARED(path=written(model, tmp_path, spelling)))
    assert checkpoint.architecture.num_heads == 4  # of config.json: no published ViT is 32 wide
    torch.testing.assert_close(tokens_of(checkpoint, image()), expected_tokens(model), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_mae_loss_and_reconstruction_equal(spelling: Spelling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # ours reduces its loss in float32 whatever the weights are; kept in float64 here to compare closely
    model = randomised(vit_mae())
    checkpoint = read_checkpoint(DECLARED(path=written(model, tmp_path, spelling)))
    encoder = ViT(checkpoint.architecture, train_position=False)
    load_checkpoint(encoder, checkpoint)
    ours = MaskedAutoencoder(
        encoder, mask_ratio=0.75, decoder_dim=32, decoder_depth=2, decoder_heads=16, normalise_target=True
    )
    decoder = {name: tensor for name, tensor in checkpoint.state.items() if DECODER.fullmatch(name)}
    absent, unexpected = ours.load_state_dict(decoder, strict=False)
    assert not unexpected and all(name.startswith("encoder.") for name in absent)
    noise = torch.rand(2, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    monkeypatch.setattr(Tensor, "float", lambda tensor: tensor)
    with torch.no_grad():
        made = ours.double().reconstruct(image(), noise)
        expected = model.double()(image(), noise=noise)
    torch.testing.assert_close(made.prediction_BNP, expected.logits, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(made.loss_B.mean(), expected.loss, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("make", [vit_mae, vit, vit_classifier, beit, beit_with_positions, beit_classifier])
def test_from_pretrained_takes_the_folder(make: Callable[[], PreTrainedModel], tmp_path: Path) -> None:
    model = randomised(make())
    checkpoint = read_checkpoint(DECLARED(path=written(model, tmp_path / "in", "version 5 in memory")))
    out = tmp_path / "out"
    lines = write_as(checkpoint, "huggingface", out / "model.safetensors")
    assert lines[0] == f"config.json ({type(model).__name__}) and preprocessor_config.json are beside it"
    pooler = {"add_pooling_layer": False} if isinstance(model, ViTModel) else {}
    loaded, info = type(model).from_pretrained(out, output_loading_info=True, **pooler)
    assert {what: list(names) for what, names in info.items() if names} == {}
    assert loaded.config.layer_norm_eps == 1e-6 and loaded.config.num_labels == model.config.num_labels
    for name, tensor in model.state_dict().items():
        if not name.startswith("pooler.dense"):  # which ViTModel alone has
            assert torch.equal(loaded.state_dict()[name], tensor), name
    noise = {"noise": torch.arange(16.0).expand(2, -1)} if isinstance(model, ViTMAEForPreTraining) else {}
    with torch.no_grad():
        outputs = [m.eval()(image().float(), **noise) for m in (loaded, model)]
    made, expected = (output["logits"] if "logits" in output else output["last_hidden_state"] for output in outputs)
    assert torch.equal(made, expected)
    again = read_checkpoint(DECLARED(path=out / "model.safetensors"))
    assert again.normalisation == checkpoint.normalisation and again.notes == ()
    assert again.architecture == checkpoint.architecture


def test_the_processor_gives_the_pixels_that_the_weights_want(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(DECLARED(path=written(vit(), tmp_path / "in")))
    write_as(checkpoint, "huggingface", tmp_path / "out" / "model.safetensors")
    pixels = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    processed = AutoImageProcessor.from_pretrained(tmp_path / "out")(pixels, return_tensors="pt")["pixel_values"][0]
    mean, std = (torch.tensor(values)[:, None, None] for values in (HALF.mean, HALF.std))
    # float32, and transformers folds scale and constants into one
    torch.testing.assert_close(processed, (pixels / 255 - mean) / std, rtol=0, atol=1e-6)


def test_files_beside_are_never_replaced_by_others(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(DECLARED(path=written(vit(), tmp_path / "in")))
    out = tmp_path / "out" / "model.safetensors"
    for _ in range(2):  # the same again is fine
        write_as(checkpoint, "huggingface", out)
    (out.parent / "preprocessor_config.json").unlink()
    out.unlink()
    (out.parent / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"config\.json: is there already and says otherwise.*folder of their own"):
        write_as(checkpoint, "huggingface", out)
    assert [path.name for path in out.parent.iterdir()] == ["config.json"]
    lines = write_as(checkpoint, "huggingface", tmp_path / "other" / "vit.safetensors")
    assert lines[-1] == "from_pretrained looks for model.safetensors: rename vit.safetensors"


def test_a_decoder_that_is_not_maes_is_refused(tmp_path: Path) -> None:
    narrow = {**DECODER_SIZES, "decoder_hidden_size": 12, "decoder_num_attention_heads": 3}
    path = written(ViTMAEForPreTraining(ViTMAEConfig(**TINY, **narrow)), tmp_path / "in")
    with pytest.raises(ValueError, match=r"decoder is 12 wide, which MAE's 16 heads do not divide.*--encoder-only"):
        write_as(read_checkpoint(DECLARED(path=path)), "huggingface", tmp_path / "out" / "model.safetensors")


@pytest.mark.parametrize(("added", "found"), [((), "neither norm nor"), (("norm", "fc_norm"), "both norm and")])
def test_beit_has_one_norm(added: tuple[str, ...], found: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(DECLARED(path=written(beit(), tmp_path)))
    for leaf in ("weight", "bias"):
        del checkpoint.state[f"norm.{leaf}"]
        checkpoint.state.update({f"{name}.{leaf}": torch.ones(32) for name in added})
    with pytest.raises(ValueError, match=f"has {found} fc_norm, and transformers' Beit needs one of them"):
        write_as(checkpoint, "huggingface", tmp_path / "out" / "model.safetensors")


def test_written_names_are_those_of_the_hub(tmp_path: Path) -> None:
    path = written(randomised(vit_mae()), tmp_path)
    again = tmp_path / "again" / "model.safetensors"
    write_as(read_checkpoint(DECLARED(path=path)), "huggingface", again)
    before, after = load_file(path), load_file(again)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_pretrained_beit_and_fused_bias_become_beit(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(DECLARED(path=written(randomised(beit_pretrained()), tmp_path / "in")))
    generator = torch.Generator().manual_seed(3)
    for i in range(2):
        q, v = (checkpoint.state.pop(f"blocks.{i}.attn.{part}_bias") for part in "qv")
        checkpoint.state[f"blocks.{i}.attn.qkv.bias"] = torch.cat([q, torch.randn(32, generator=generator), v])
    out = tmp_path / "out"
    write_as(checkpoint, "huggingface", out / "model.safetensors")
    loaded, info = BeitModel.from_pretrained(out, output_loading_info=True)
    assert not any(info.values())
    # the bias of the keys is gone, and softmax does not see it
    expected = expected_tokens(randomised(beit_pretrained()))
    with torch.no_grad():
        torch.testing.assert_close(loaded.double()(image()).last_hidden_state, expected, rtol=0, atol=TOLERANCE)


def test_a_plain_encoder_fits_vit_mae_too(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(DECLARED(path=written(randomised(vit()), tmp_path / "in")))
    out = tmp_path / "out"
    write_as(checkpoint, "huggingface", out / "model.safetensors")
    ViTMAEConfig(**TINY).save_pretrained(out)
    _, info = ViTMAEModel.from_pretrained(out, output_loading_info=True)
    assert not any(info.values())


def test_dropped_by_rule(tmp_path: Path) -> None:
    path = written(randomised(beit_pretrained()), tmp_path)
    index = torch.zeros(17, 17, dtype=torch.long)
    before = load_file(path) | {"beit.encoder.relative_position_bias.relative_position_index": index}
    save_file(before, path)
    assert read_checkpoint(DECLARED(path=path)).dropped == (
        "beit.embeddings.mask_token: the token for masked patches of another pre-training",
        "beit.encoder.relative_position_bias.relative_position_index: an index, made anew for every grid",
        "lm_head.bias: Beit's head of pre-training",
        "lm_head.weight: Beit's head of pre-training",
    )
    assert [line.partition(":")[0] for line in read_checkpoint(DECLARED(path=written(vit(), tmp_path))).dropped] == [
        "pooler.dense.bias",
        "pooler.dense.weight",
    ]


@pytest.mark.parametrize(
    ("make", "constants"),
    [(vit_mae, IMAGENET), (vit_mae_encoder, IMAGENET), (vit, HALF), (vit_classifier, HALF), (beit, HALF)],
)
def test_normalisation(make: Callable[[], PreTrainedModel], constants: Normalisation, tmp_path: Path) -> None:
    path = written(make(), tmp_path)
    checkpoint = read_checkpoint(DECLARED(path=path))
    assert checkpoint.normalisation == constants
    assert len(checkpoint.notes) == 1 and "no preprocessor_config.json beside the file" in checkpoint.notes[0]
    beside = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(beside))
    checkpoint = read_checkpoint(DECLARED(path=path))
    assert checkpoint.normalisation == Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert checkpoint.notes == ()


def test_another_epsilon_is_noted(tmp_path: Path) -> None:
    model = ViTModel(ViTConfig(**{**TINY, "layer_norm_eps": 1e-12}))
    assert read_checkpoint(DECLARED(path=written(model, tmp_path))).notes[-1] == (
        "norms have an epsilon of 1e-06 here, and of 1e-12 by config.json"
    )


def test_image_that_is_no_square(tmp_path: Path) -> None:
    model = randomised(ViTModel(ViTConfig(**{**TINY, "image_size": (16, 40)})))
    checkpoint = read_checkpoint(DECLARED(path=written(model, tmp_path)))
    assert checkpoint.architecture.grid == (2, 5)
    pixels = torch.randn(1, 3, 16, 40, dtype=torch.float64)
    with torch.no_grad():
        expected = model.double()(pixels).last_hidden_state
    torch.testing.assert_close(tokens_of(checkpoint, pixels), expected, rtol=0, atol=TOLERANCE)


def test_heads_are_to_be_declared_without_a_config(tmp_path: Path) -> None:
    path = written(vit(), tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match="the number of attention heads cannot be read"):
        read_checkpoint(DECLARED(path=path))
    assert read_checkpoint(InitialWeights(path=path, source="huggingface", num_heads=2)).architecture.num_heads == 2


def changed(path: Path, changes: dict[str, Tensor | None]) -> Path:
    state = {**load_file(path), **changes}
    save_file({name: tensor.clone() for name, tensor in state.items() if tensor is not None}, path)
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks.0.norm1.weight": torch.ones(32)}, r"1 of \d+ names .* blocks.0.norm1.weight"),
        ({"blocks.0.attn.qkv.weight": torch.ones(96, 32)}, "blocks.0.attn.qkv.weight"),
        ({"encoder.layer.0.attention.attention.key.weight": None}, "blocks.0.attn.qkv.weight cannot be joined: key of"),
        ({"encoder.layer.1.attention.attention.query.bias": None}, "blocks.1.attn.qkv.bias cannot be joined: query of"),
        ({"layers.0.attention.q_proj.bias": torch.ones(32)}, "a second time under its other spelling"),
        ({"layers.0.layernorm_before.bias": torch.ones(32)}, "the file mixes two spellings"),
    ],
)
def test_refused_names(changes: dict[str, Tensor | None], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_checkpoint(DECLARED(path=changed(written(vit(), tmp_path), changes)))


def test_another_source_refuses_the_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="read as source 'mae'"):
        read_checkpoint(InitialWeights(path=written(vit(), tmp_path), source="mae"))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("fc_norm.weight", (32,), "transformers' ViT has no place for 1 tensors: fc_norm.weight"),
        ("blocks.0.attn.rel_pos_h", (7, 8), "ViT has no place for 1 tensors: blocks.0.attn.rel_pos_h"),
        ("dist_token", (1, 1, 32), "ViT has no place for 1 tensors: dist_token"),
        ("norm.weight", None, "has no norm.weight, and transformers' ViT needs it"),
        ("cls_token", None, "has no cls_token, and transformers' ViT needs it"),
    ],
)
def test_refused_to_write(name: str, shape: tuple[int, ...] | None, message: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(DECLARED(path=written(vit(), tmp_path)))
    if shape is None:
        del checkpoint.state[name]
    else:
        checkpoint.state[name] = torch.zeros(shape)
    with pytest.raises(ValueError, match=message):
        write_as(checkpoint, "huggingface", tmp_path / "out" / "model.safetensors")
