"""A ViT without positions, class token or a bias is another ViT: refused unless its family or its header has none."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BeitConfig, BeitModel

from backbones.config import ViTConfig
from backbones.sources import SOURCES
from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from backbones.weights.declaration import FAMILIES, InitialWeights
from backbones.weights.loader import load_checkpoint
from backbones.weights.read import read_checkpoint
from tests.weight_samples import Sample

# how each family spells its positions, class token and the bias of its patches
POSITIONS = (
    "pos_embed",
    "pos_embedding",
    "position_embeddings",
    "positional_embedding",
    "relative_position_bias_table",
)
TOKENS = ("cls_token", "cls", "class_embedding")
PATCH_BIAS = ("patch_embed.proj.bias", "projection.bias", "embedding/bias")
FINAL_NORM = ("norm.weight", "norm.bias", "layernorm.weight", "layernorm.bias", "ln1.weight", "ln1.bias")


def without(sample: Any, ends: tuple[str, ...], *, outside: bool = False) -> Any:
    """The sample without the tensors that end so; `outside` keeps those of the blocks."""
    gone = [
        name
        for name in sample.tensors
        if name.endswith(ends) and not (outside and any(part.isdigit() for part in name.split(".")))
    ]
    assert gone, (sample.source, ends)
    return sample.with_tensors({name: tensor for name, tensor in sample.tensors.items() if name not in gone})


def test_every_family_has_the_name_that_it_is_declared_by() -> None:
    assert [*SOURCES] == [source.name for source in SOURCES.values()] == [*FAMILIES]


@pytest.mark.parametrize("source", SOURCES)
def test_the_whole_file_is_read(source: str, samples: dict[str, Any], tmp_path: Path) -> None:
    sample = samples[source]
    checkpoint = sample.read(sample.write(tmp_path / "whole"))
    dense = source in ("detectron2", "sam")
    vit = ViT(checkpoint.architecture, class_token=not dense and source != "ijepa", final_norm=not dense)
    report = load_checkpoint(vit, checkpoint)
    assert checkpoint.notes == () or source in ("huggingface", "sam", "dinov3")
    assert len(report.loaded) == {
        "beit": 36,
        "mmseg": 37,
        "detectron2": 31,
        "dinov2": 34,
        "dinov3": 32,
        "sam": 31,
        "ijepa": 29,
        "openclip": 31,
    }.get(source, 30)


@pytest.mark.parametrize("source", [name for name in SOURCES if name not in ("detectron2", "dinov3")])
def test_without_positions(source: str, samples: dict[str, Any], tmp_path: Path) -> None:
    cut = without(samples[source], POSITIONS)
    with pytest.raises(ValueError, match=r"cut\..*(there is no pos_embed|Missing 1 \(pos_embed\)|gamma_1 alone)"):
        cut.read(cut.write(tmp_path / "cut"))


def test_relative_positions_alone_are_noted(samples: dict[str, Any], tmp_path: Path) -> None:
    """detectron2's ViT can be built so, and then says so; without those it is refused."""
    cut = without(samples["detectron2"], ("pos_embed",))
    checkpoint = cut.read(cut.write(tmp_path / "relative"))
    assert checkpoint.architecture.position == "none"
    assert "pos_embed: none (use_abs_pos=False); relative positions alone" in checkpoint.notes
    bare = without(cut, ("rel_pos_h", "rel_pos_w"))
    with pytest.raises(ValueError, match=r"bare\.pth.*there is no pos_embed and no blocks\.0\.attn\.rel_pos_h"):
        bare.read(bare.write(tmp_path / "bare"))


def test_a_header_may_say_that_there_are_none(tmp_path: Path) -> None:
    bare = ViTConfig(embed_dim=8, depth=1, num_heads=2, patch_size=4, image_size=(8, 8), position="none")
    write_checkpoint(tmp_path / "b.safetensors", ViT(bare), source="mae")
    assert read_checkpoint(InitialWeights(path=tmp_path / "b.safetensors")).architecture.position == "none"


def test_beit_of_transformers_says_so_in_its_config(tmp_path: Path) -> None:
    config = BeitConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=16, patch_size=4
    )
    config.layer_norm_eps = 1e-6
    BeitModel(config).save_pretrained(tmp_path)
    sample, file = Sample("huggingface", {}), tmp_path / "model.safetensors"
    assert sample.read(file).architecture.position == "none"
    stated = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors.*there are no positions of any kind"):
        sample.read(file)
    stated["use_absolute_position_embeddings"] = True
    (tmp_path / "config.json").write_text(json.dumps(stated))
    with pytest.raises(ValueError, match="use_absolute_position_embeddings true, and the file has no position table"):
        sample.read(file)


@pytest.mark.parametrize("source", [name for name in SOURCES if name not in ("detectron2", "own", "ijepa", "sam")])
def test_without_a_class_token(source: str, samples: dict[str, Any], tmp_path: Path) -> None:
    cut = without(samples[source], TOKENS)
    path = cut.write(tmp_path / "cut")
    if source != "timm":
        with pytest.raises(ValueError, match=r"cut\..*there is no cls_token"):
            cut.read(path)
        return
    tensors = cut.tensors  # some of timm's have none: their table has no row for it
    rows = {**tensors, "pos_embed": tensors["pos_embed"][:, 1:].contiguous()}
    checkpoint = cut.read(cut.with_tensors(rows).write(tmp_path / "gap"))
    assert checkpoint.num_prefix_positions == 0
    assert checkpoint.notes == ("cls_token: the file has none; the ViT is taken without",)


@pytest.mark.parametrize("source", [name for name in SOURCES if name != "openclip"])  # whose patches have none
def test_without_the_bias_of_the_patches(source: str, samples: dict[str, Any], tmp_path: Path) -> None:
    cut = without(samples[source], PATCH_BIAS)
    with pytest.raises(ValueError, match=r"cut\..*patch_embed\.proj\.bias"):
        cut.read(cut.write(tmp_path / "cut"))


@pytest.mark.parametrize("source", ["mae", "timm", "beit", "dino", "moco_v3", "huggingface", "mmpretrain"])
def test_without_a_final_norm_is_noted(source: str, samples: dict[str, Any], tmp_path: Path) -> None:
    """Nothing is computed otherwise: a task that has a final norm refuses the weights."""
    cut = without(samples[source], FINAL_NORM, outside=True)
    checkpoint = cut.read(cut.write(tmp_path / "cut"))
    assert [note for note in checkpoint.notes if note.startswith("norm: the file has neither norm nor fc_norm")]
    with pytest.raises(ValueError, match=r"cut\..*Missing 2 \(norm\.bias, norm\.weight\)"):
        load_checkpoint(ViT(checkpoint.architecture), checkpoint)


def test_half_of_mmsegs_layers(samples: dict[str, Any], tmp_path: Path) -> None:
    cut = without(samples["mmseg"], ("gamma_1", "gamma_2"))
    with pytest.raises(ValueError, match=r"cut\.pth.*relative_position_bias_table alone.*not whole"):
        cut.read(cut.write(tmp_path / "cut"))


def test_mmpretrains_pixels_are_declared(samples: dict[str, Any], tmp_path: Path) -> None:
    sample = samples["mmpretrain"]
    path = sample.write(tmp_path / "file")
    means = {source: sample.read(path, source).normalisation.mean for source in ("mmpretrain", "mmpretrain_half")}
    assert means == {"mmpretrain": (0.485, 0.456, 0.406), "mmpretrain_half": (0.5, 0.5, 0.5)}
    tuned = {name.replace("backbone.ln1.", "backbone.ln2."): t for name, t in sample.tensors.items()}
    found = sample.read(sample.with_tensors(tuned).write(tmp_path / "tuned"))
    assert torch.equal(found.state["fc_norm.weight"], sample.tensors["backbone.ln1.weight"])


def test_what_mmpretrains_pretraining_keeps_beside_the_backbone(samples: dict[str, Any], tmp_path: Path) -> None:
    """models/selfsup: `mocov3.py` averages Sequential(backbone, neck), `beit.py` has a tokenizer and a mask token."""
    sample = samples["mmpretrain"]
    beside = {"momentum_encoder.steps": torch.tensor(3), "momentum_encoder.module.1.fc0.weight": torch.ones(2, 2)}
    beside |= {"momentum_encoder.module.0." + n.removeprefix("backbone."): t + 1 for n, t in sample.tensors.items()}
    beside |= {"target_generator.blocks.input.w": torch.ones(2, 3, 7, 7), "backbone.mask_token": torch.ones(1, 1, 8)}
    found = sample.read(sample.with_tensors(sample.tensors | beside).write(tmp_path / "whole"))
    alone = sample.read(sample.write(tmp_path / "alone"))
    assert found.state.keys() == alone.state.keys()
    assert all(torch.equal(found.state[name], tensor) for name, tensor in alone.state.items())
    assert {line.split(":")[0] for line in found.dropped} >= beside.keys()


@pytest.mark.parametrize("kind", [torch.int8, torch.int64, torch.bool])
def test_a_parameter_of_whole_numbers(kind: torch.dtype, samples: dict[str, Any], tmp_path: Path) -> None:
    name = "backbone.net.blocks.1.attn.rel_pos_h"
    sample = samples["detectron2"]
    changed = sample.with_tensors(sample.tensors | {name: sample.tensors[name].to(kind)})
    with pytest.raises(ValueError, match=rf"file\.pth.*blocks\.1\.attn\.rel_pos_h is of {kind}, and a parameter is a"):
        changed.read(changed.write(tmp_path / "file"))
