"""The table of public checkpoints: consistent with the family of architectures, found by name and MD5."""

import shlex
from pathlib import Path

import pytest
from timm.models import get_pretrained_cfg

from backbones.config import FAMILY
from backbones.sources import SOURCES
from backbones.weights.zoo import PUBLIC, find_public
from backbones.weights.zoo_table import markdown_table


def test_every_entry_is_consistent() -> None:
    names = [entry.name for entry in PUBLIC]
    assert len(set(names)) == len(names)
    for entry in PUBLIC:
        assert entry.architecture in FAMILY, entry.name
        assert entry.url.startswith("https://") and entry.url.endswith(entry.name), entry.name
        assert len(entry.mean) == len(entry.std) == FAMILY[entry.architecture].in_chans
        assert entry.source in ("mae", "timm") or entry.md5 is None


@pytest.mark.parametrize(
    ("name", "source", "architecture", "contents", "normalised"),
    [
        ("mae_pretrain_vit_huge.pth", "mae", "vit_huge_patch14", "encoder", "yes"),
        ("mae_pretrain_vit_base_full.pth", "mae", "vit_base_patch16", "encoder and decoder", "yes"),
        ("mae_visualize_vit_large_ganloss.pth", "mae", "vit_large_patch16", "encoder and decoder", "no"),
        ("mae_finetuned_vit_large.pth", "mae", "vit_large_patch16", "fine-tuned", "yes"),
        ("deit_tiny_distilled_patch16_224-b40b3cf7.pth", "timm", "vit_tiny_patch16", "fine-tuned", "not applicable"),
        ("beit_large_patch16_224_pt22k.pth", "beit", "vit_large_patch16", "encoder", "not applicable"),
        ("vit-s-300ep.pth.tar", "moco_v3", "vit_small_patch16_12heads", "training checkpoint", "not applicable"),
        ("dino_vitbase8_pretrain.pth", "dino", "vit_base_patch8", "encoder", "not applicable"),
        ("facebook/vit-mae-huge", "huggingface", "vit_huge_patch14", "encoder and decoder", "no"),
        ("model_final_61ccd1.pkl", "detectron2", "vit_base_patch16", "fine-tuned", "yes"),
    ],
)
def test_known_files(name: str, source: str, architecture: str, contents: str, normalised: str) -> None:
    entry = find_public(name)
    assert entry is not None
    found = (entry.source, entry.architecture, entry.contents, entry.normalised_target)
    assert found == (source, architecture, contents, normalised)


def test_normalisation_is_half_for_augreg_beit_and_siglip_alone() -> None:
    half = {entry.source for entry in PUBLIC if entry.mean == (0.5, 0.5, 0.5)}
    assert half == {"augreg", "beit", "huggingface", "timm"}
    towers = [entry for entry in PUBLIC if entry.source == "timm" and entry.mean[0] == 0.5]
    assert towers and all("siglip" in entry.name for entry in towers)
    assert all(entry.mean[0] == 0.485 for entry in PUBLIC if entry.name.startswith("facebook/vit-mae"))


def test_timms_towers_are_as_timm_says() -> None:
    entries = [entry for entry in PUBLIC if "_siglip_" in entry.name or "_clip_" in entry.name]
    assert len(entries) == 11
    for entry in entries:
        theirs = get_pretrained_cfg(entry.name.removeprefix("timm/"), allow_unregistered=False)
        assert theirs.hf_hub_id in ("timm/", entry.name)
        assert (theirs.mean, theirs.std) == (entry.mean, entry.std)
        assert theirs.license.lower() == entry.licence.lower()


def test_dinov2s_files_are_as_timm_says() -> None:
    for entry in (entry for entry in PUBLIC if entry.source == "dinov2"):
        registers = "_reg4" if "_reg4" in entry.name else ""
        theirs = get_pretrained_cfg(f"{entry.architecture}{registers}_dinov2.lvd142m", allow_unregistered=False)
        assert (theirs.url, theirs.mean, theirs.std) == (entry.url, entry.mean, entry.std)


def test_md5_confirms_contradicts_and_finds() -> None:
    name = "mae_pretrain_vit_base.pth"
    entry = find_public(name)
    assert entry is not None and entry.md5 == "8cad7c"
    assert find_public(name, "8cad7c" + 26 * "0") is entry
    assert find_public("renamed.pth", "8cad7c" + 26 * "0") is entry
    assert find_public(name, 32 * "0") is None
    # no MD5 is published for it, so the name decides
    assert find_public("dino_vitbase8_pretrain.pth", 32 * "0") is not None
    assert find_public("checkpoint-799.pth") is None


def test_commands_name_the_file_and_the_source() -> None:
    entry = find_public("model_final_61ccd1.pkl")
    assert entry is not None
    assert entry.command == (
        "python tools/convert_checkpoint.py convert model_final_61ccd1.pkl --init-source detectron2 --trust-pickle "
        "--out backbone.safetensors"
    )
    hub = find_public("facebook/vit-mae-base")
    assert hub is not None and shlex.split(hub.command)[3] == "pytorch_model.bin"


def test_table_has_a_row_and_a_command_for_each() -> None:
    lines = markdown_table().splitlines()
    rows = [line for line in lines if line.startswith("| [")]
    assert len(rows) == len(PUBLIC) and {row.count("|") for row in rows} == {11}
    assert sum(line.startswith("python tools/convert_checkpoint.py convert ") for line in lines) == len(PUBLIC)
    assert (
        "| [mae_pretrain_vit_base.pth](https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth) | mae "
        "| vit_base_patch16 | encoder | yes | ImageNet-1K | 1600 | ImageNet | 8cad7c... | CC-BY-NC-4.0 |"
    ) in rows


def test_docs_have_the_table() -> None:
    """The page is `markdown_table()` below the text: write it anew when the table changes."""
    page = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    assert page.partition("| file |")[2] == markdown_table().partition("| file |")[2]


def test_docs_name_every_source() -> None:
    page = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    table = page.split("## Sources")[1].split("Versions:")[0]
    assert [name for name in SOURCES if f"`{name}`" not in table] == []
