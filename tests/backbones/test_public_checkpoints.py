"""The catalogue of public checkpoints: read whole or refused, consistent with timm, searched, found by name and MD5."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import timm
import torch
from timm.models import get_pretrained_cfg
from timm.models._registry import _model_pretrained_cfgs

from backbones.config import FAMILY
from backbones.sources import SOURCES
from backbones.vit import ViT
from backbones.weights.declaration import InitialWeights
from backbones.weights.hub import catalogued, family_of, parse
from backbones.weights.read import interpret
from backbones.weights.reader import WeightFile
from backbones.weights.zoo import find_public, public_checkpoints
from backbones.weights.zoo_entry import PublicCheckpoint
from backbones.weights.zoo_table import Search, markdown_table
from tools.convert_checkpoint import main

PAGE = Path(__file__).parents[2] / "docs" / "checkpoints.md"
TABLE = PAGE.with_name("public_files.md")


def test_every_entry_is_consistent() -> None:
    entries = public_checkpoints()
    assert len(entries) == 268
    for entry in entries:
        assert entry.url.startswith("https://") and entry.url.endswith(entry.name), entry.name
        assert len(entry.mean) == len(entry.std) == FAMILY[entry.architecture].in_chans
        assert entry.source in ("mae", "timm") or entry.md5 is None
        # one spelling of a licence, so that a search finds all of it
        assert (entry.licence or "").split(" ")[0] in (
            "",
            "Apache-2.0",
            "MIT",
            "CC-BY-NC-4.0",
            "apple-ascl",
            "apple-amlr",
            "see",
            "dinov3-license",
        )
    assert len({entry.typed for entry in entries}) == len(entries)


def test_every_entrys_architecture_builds() -> None:
    for name in {entry.architecture for entry in public_checkpoints()}:
        with torch.device("meta"):
            vit = ViT(FAMILY[name])
        assert len(vit.blocks) == FAMILY[name].depth


def test_what_is_typed_is_the_entry_and_its_family() -> None:
    for entry in public_checkpoints():
        assert catalogued(entry.typed) is entry
        assert family_of(parse(entry.typed)) == entry.source
    assert catalogued("hf:facebook/vit-mae-base/pytorch_model.bin@main") is find_public("facebook/vit-mae-base")
    assert catalogued("hf:timm/vit_base_patch16_224.mae@" + 40 * "0") is find_public("timm/vit_base_patch16_224.mae")
    assert catalogued(Path("weights/mae_pretrain_vit_base.pth")) is find_public("mae_pretrain_vit_base.pth")
    assert catalogued("hf:some/model") is None and catalogued("runs/backbone.safetensors") is None


OF_TIMM = {entry.name: entry for entry in public_checkpoints() if entry.name.startswith("timm/")}
OF_EACH_KIND = (
    "timm/deit3_small_patch16_224.fb_in1k",
    "timm/vit_base_patch8_224.dino",
    "timm/beitv2_base_patch16_224.in1k_ft_in1k",
    "timm/vit_base_patch16_clip_224.openai",
    "timm/vit_base_patch16_siglip_224.v2_webli",
    "timm/vit_small_patch14_reg4_dinov2.lvd142m",
    "timm/vit_small_patch16_384.augreg_in1k",
)
OF_EACH_ARCHITECTURE = {name.partition(".")[0]: name for name in OF_TIMM}


def check_read(name: str) -> None:
    """Names and shapes of timm's model, without memory, go through the reader of the entry's family, by the name."""
    entry, model = OF_TIMM[name], name.removeprefix("timm/")
    with torch.device("meta"):
        tensors = timm.create_model(model.partition(".")[0]).state_dict()
    path = Path(model) / "model.safetensors"
    file = WeightFile(path, "safetensors", tensors, "", (), digest=str, check=lambda: None)
    read = interpret(file, InitialWeights(path=path, source=entry.source))
    sizes = ("embed_dim", "depth", "num_heads", "patch_size")
    said = FAMILY[entry.architecture]
    assert [getattr(read.architecture, size) for size in sizes] == [getattr(said, size) for size in sizes]
    assert (read.normalisation.mean, read.normalisation.std) == (entry.mean, entry.std)


@pytest.mark.parametrize("name", OF_EACH_KIND)
def test_timms_files_are_read_as_the_family_of_their_names(name: str) -> None:
    check_read(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_EACH_ARCHITECTURE.values(), ids=OF_EACH_ARCHITECTURE)
def test_every_architecture_of_timms_is_read(name: str) -> None:
    check_read(name)


@cache
def _timms_by_url() -> dict[str, str]:
    return {cfg.url: name for name, cfg in _model_pretrained_cfgs.items() if cfg.url and "." in name}


def test_facts_agree_with_timm_where_it_knows_the_file() -> None:
    known = 0
    for entry in public_checkpoints():
        name = entry.typed.removeprefix("timm:") if entry.typed.startswith("timm:") else _timms_by_url().get(entry.url)
        if name is None:
            continue
        known += 1
        theirs = get_pretrained_cfg(name, allow_unregistered=False)
        assert (theirs.mean, theirs.std) == (entry.mean, entry.std), entry.name
        assert theirs.input_size == (3, entry.image_size, entry.image_size), entry.name
        if entry.typed.startswith("timm:"):
            assert theirs.hf_hub_id in ("timm/", entry.name), entry.name
            assert (theirs.license or "").lower() == (entry.licence or "").lower(), entry.name
    assert known == 185


def test_labels_are_those_of_the_method() -> None:
    for words, labels in {
        **{
            ("dinov2",): {"none"},
            ("siglip",): {"texts"},
            ("clip_224", "openai"): {"texts", "texts and classes"},
            ("augreg",): {"classes"},
        },
        **{("deit3",): {"classes"}, ("ijepa",): {"none"}, ("moco_v3",): {"none"}, ("detectron2",): {"boxes"}},
        **{("mae_finetuned",): {"classes"}, ("mae_pretrain",): {"none"}, ("pt22k_ft",): {"classes"}},
    }.items():
        assert {entry.labels for entry in Search(words=words).found()} == labels, words


def test_all_faults_of_the_file_are_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "- {source: mae, architecture: vit_base_patch16, folder: 'https://a/b', contents: encoder, data: D,\n"
        "   image_size: 224, paper: P,\n"
        "   labels: none, licence: null, files: [{name: a.pth}, {name: a.pth}, {name: b.pth, epochs: many},\n"
        "   {name: c.pth, labels: some}, {name: d.pth, source: other}, {name: e.pth, mean: [1, 2]}, {md5: a}]}\n"
        "- {source: mae}\n"
        "- {source: timm, files: [{name: f.pth, folder: 'http://a/'}]}\n"
    )
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path}: a.yaml: ")) as refused:
        public_checkpoints(tmp_path)
    for part in (
        *(
            "name a.pth comes twice",
            "b.pth: epochs: 'many' is no whole number",
            "c.pth: labels: 'some' is none of none",
        ),
        *("d.pth: source 'other' is none of own, mae", "e.pth: mean: [1, 2] is no list of 3"),
        *("block 1, file 7: PublicCheckpoint needs name", "block 2: it should have `files`"),
        "f.pth: PublicCheckpoint needs architecture, contents, data, image_size, labels, licence, paper",
    ):
        assert part in str(refused.value)
    public_checkpoints.cache_clear()
    path.write_text("a: 1\n")
    with pytest.raises(ValueError, match=r"a\.yaml: it should be a list of blocks"):
        public_checkpoints(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match="there is no catalogue"):
        public_checkpoints(tmp_path)


def test_teachers_and_published_numbers_have_their_source() -> None:
    beit = find_public("beit_base_patch16_224_pt22k.pth")
    assert beit is not None
    assert beit.images == "ImageNet-21K; tokenizer of DALL-E (250M images with text)"
    numbers = [number for entry in public_checkpoints() for number in entry.published]
    assert len(numbers) > 50 and all(number.source and 0 < number.value < 100 for number in numbers)


def test_an_entry_says_what_is_not_known() -> None:
    with pytest.raises(ValueError, match=r"architecture 'vit' is none of .*; folder 'http://a' should be https://"):
        PublicCheckpoint(
            **{"name": "n", "source": "mae", "architecture": "vit", "folder": "http://a", "contents": "encoder"},
            **{"data": "D", "labels": "none", "licence": None, "image_size": 224, "paper": "P"},
        )


def test_the_catalogue_is_read_where_it_is_asked_for() -> None:
    code = "import backbones.weights.hub, backbones.weights.zoo as z; print(z.public_checkpoints.cache_info().misses)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        (
            ["dinov2", "--size", "base", "--family", "timm"],
            ["timm:vit_base_patch14_dinov2.lvd142m", "timm:vit_base_patch14_reg4_dinov2.lvd142m"],
        ),
        (
            ["--data", "webli", "--size", "large_patch16", "--licence", "apache-2.0", "v2", "512"],
            ["timm:vit_large_patch16_siglip_512.v2_webli"],
        ),
        (["FACEBOOK", "imagenet 1k", "mae", "--size", "huge"], ["hf:facebook/vit-mae-huge"]),
        (
            ["--licence", "not stated", "--size", "huge"],
            [
                "https://dl.fbaipublicfiles.com/detectron2/ViTDet/COCO/mask_rcnn_vitdet_h/f329145471/model_final_7224f1.pkl"
            ],
        ),
    ],
)
def test_list_finds(argv: list[str], names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", *argv]) == 0
    head, *rows, count = capsys.readouterr().out.splitlines()
    assert [row.split()[-1] for row in rows] == names
    assert count == f"{len(names)} of 268 public checkpoints"
    # aligned: the last column begins where its head does
    assert {row.rindex(name) for row, name in zip(rows, names, strict=True)} == {head.rindex("name")}


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["dinov4"], "no public checkpoint has the word 'dinov4'. Near: https://dl.fbaipublicfiles.com/dinov2/"),
        (["--family", "mea"], "no public checkpoint has the family 'mea'; there are: augreg, beit, "),
        (
            ["--size", "bse", "dino"],
            "has the size 'bse'; there are: base_patch14, base_patch16, base_patch8, giant_patch16",
        ),
        (["--size", "giant", "--family", "clip"], "no public checkpoint fits all of it. Near: timm:vit_"),
        (
            ["--licence", "gpl"],
            "there are: Apache-2.0, Apache-2.0 on the card; converted from CC-BY-NC-4.0 weights, CC-BY",
        ),
    ],
)
def test_list_names_near_ones(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", *argv]) == 1
    assert said in capsys.readouterr().err


def test_list_of_everything_has_the_formats_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("augreg: ") and out.endswith("268 of 268 public checkpoints\n")


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


def test_table_has_a_row_for_each() -> None:
    rows = [line for line in markdown_table().splitlines() if line.startswith("| [")]
    assert len(rows) == len(public_checkpoints()) and {row.count("|") for row in rows} == {15}
    assert (
        "| [mae_pretrain_vit_base.pth](https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth) | mae "
        "| vit_base_patch16 | 224 | encoder | yes | ImageNet-1K | none | 1600 | ImageNet | CC-BY-NC-4.0 | 2111.06377 "
        "| 8cad7c... | ImageNet-1K top-1, fine-tuned at 224 px 83.6 (arXiv 2111.06377, table 3); "
        "ADE20K mIoU, UPerNet at 512 px 48.1 (arXiv 2111.06377, table 5) |"
    ) in rows


def test_docs_have_the_table() -> None:
    """The page is `markdown_table()` below the text: write it anew when the table changes."""
    assert TABLE.read_text(encoding="utf-8").partition("| file, ")[2] == markdown_table().partition("| file, ")[2]


def test_docs_name_every_source() -> None:
    table = PAGE.read_text(encoding="utf-8").split("## Sources")[1].split("Versions:")[0]
    assert [name for name in SOURCES if f"`{name}`" not in table] == []
