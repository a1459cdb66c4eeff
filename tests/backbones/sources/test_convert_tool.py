"""The tool that says what a weights file is and writes it in other formats."""

import argparse
import os
import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import classification.recipes
import detection.recipes.all
import segmentation.recipes
from backbones.config import FAMILY, ViTConfig
from backbones.position import sincos_table
from backbones.sources import SOURCES
from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from backbones.weights.convert import changed
from backbones.weights.declaration import Changes, InitialWeights
from backbones.weights.inspect import IN_RECIPES, training_flags, usual_name
from backbones.weights.loader import Fit, inflate, load_checkpoint
from backbones.weights.normalisation import HALF, IMAGENET
from backbones.weights.read import read_checkpoint
from tools.convert_checkpoint import main

TINY = ViTConfig(embed_dim=32, depth=2, num_heads=4, patch_size=8, image_size=(32, 32))
HEADS = ("--init-heads", "4")


def state(seed: int = 0) -> dict[str, Tensor]:
    """A tiny ViT's parameters, all random but for the fixed positions."""
    torch.manual_seed(seed)
    tensors = {name: torch.randn_like(tensor) for name, tensor in ViT(TINY).state_dict().items()}
    return {**tensors, "pos_embed": sincos_table(32, (4, 4), 1)}


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """A training checkpoint of the official code, of a width that was published: 192."""
    wide = ViTConfig(embed_dim=192, depth=2, num_heads=3, patch_size=8, image_size=(32, 32))
    path = tmp_path / "checkpoint-3.pth"
    state = ViT(wide).state_dict()
    torch.save({"model": state, "optimizer": {}, "epoch": 3, "args": argparse.Namespace(blr=1e-3)}, path)
    return path


def test_inspect_says_what_is_there(training: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(training)]) == 0
    text = capsys.readouterr().out
    assert "30 tensors" in text and "in the entry 'model'" in text
    assert "beside them: optimizer, epoch, args" in text
    assert "contents: encoder, a training run's state" in text
    assert "width 192, depth 2, heads 3, patch 8, 32 x 32 px" in text
    assert "the position table is MAE's fixed sin-cos table" in text
    assert "  mae: official MAE" in text and "  moco_v3: MoCo" in text  # the names are those of both
    assert (
        "which need to know what it does not tell:\n  timm: timm vit_*" in text
        and "add --init-mean and --init-std" in text
    )
    assert f"--init {training} --init-source SOURCE" in text  # so nothing is guessed


def test_inspect_trusts_our_header(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_checkpoint(tmp_path / "b.safetensors", ViT(TINY), source="mae")
    assert main(["inspect", str(tmp_path / "b.safetensors")]) == 0
    text = capsys.readouterr().out
    assert "SOURCE" not in text
    assert f"--init {tmp_path / 'b.safetensors'} --init-architecture file  # train_cls.py" in text  # 32 wide


def test_inspect_of_something_else_gives_each_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"layer1.0.conv1.weight": torch.ones(2, 2, 1, 1)}, tmp_path / "resnet.pth")
    assert main(["inspect", str(tmp_path / "resnet.pth")]) == 1
    text, error = capsys.readouterr()
    assert "  layer1.0.conv1.weight (2, 2, 1, 1)" in text and "inspect FILE" not in text
    assert text.count("1 of 1 names do not belong to this kind of file") == 1  # said once for all that say so
    assert "resnet.pth: is of no family that is known here; it holds layer1.0.conv1.weight (2, 2, 1, 1)." in error


def test_inspect_asks_for_what_the_file_does_not_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "narrow.pth"
    torch.save({"model": state()}, path)
    assert main(["inspect", str(path)]) == 1
    text, error = capsys.readouterr()
    assert "mae, timm, augreg, moco_v3: the number of attention heads cannot be read" in text
    assert "has the names of mae, timm, augreg, moco_v3, and does not tell all; add --init-heads" in error
    assert main(["inspect", str(path), "--init-heads", "4", "--init-image-size", "32", "32"]) == 0
    text = capsys.readouterr().out
    assert "--init-source SOURCE --init-heads 4 --init-image-size 32 32 --init-architecture file" in text
    assert (
        f"convert {path} --init-source SOURCE --init-heads 4 --init-image-size 32 32 --out backbone.safetensors" in text
    )


def test_the_commands_of_inspect_carry_over_other_channels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Data are read as RGB, so the file has to be converted first; the printed command is run."""
    path = tmp_path / "four.safetensors"
    four = ViT(replace(TINY, in_chans=4))
    write_checkpoint(path, four, source="mae", normalisation=IMAGENET.spread(4))
    assert main(["inspect", str(path)]) == 0
    convert, train = capsys.readouterr().out.splitlines()[-2:]
    assert train.strip().startswith("python tools/train_det.py RECIPE --data DIR --out RUN --init backbone.safetensors")
    assert "--init-architecture file" in train
    arguments = convert.partition("convert_checkpoint.py ")[2].partition("  #")[0].split()
    arguments[arguments.index("--out") + 1] = str(tmp_path / "backbone.safetensors")
    assert main(arguments) == 0
    rgb = read_checkpoint(InitialWeights(path=tmp_path / "backbone.safetensors")).architecture
    assert rgb == replace(read_checkpoint(InitialWeights(path=path)).architecture, in_chans=3)


def test_flags_of_training() -> None:
    huge, tiny, base = (FAMILY[f"vit_{name}"] for name in ("huge_patch14", "tiny_patch16", "base_patch16"))
    assert training_flags([base, base]) == ""
    assert training_flags([huge]) == " --init-resize-patch"  # ViTDet's way; recipes of H/14 itself are not hurt by it
    for one in (tiny, replace(base, layer_scale=1.0), replace(base, qkv_bias="qv"), replace(base, num_heads=8)):
        assert training_flags([base, one]) == " --init-architecture file"


def test_the_vits_of_the_recipes() -> None:
    recipes = (classification.recipes, detection.recipes.all, segmentation.recipes)
    assert {usual_name(make().backbone) for module in recipes for make in module.RECIPES.values()} == IN_RECIPES


def test_help_has_every_family(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["convert", "--help"])
    assert done.value.code == 0
    assert set(re.findall(r"\w+", capsys.readouterr().out)) >= SOURCES.keys()


def test_inspect_gives_every_flag_that_the_file_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scaled = ViT(ViTConfig(embed_dim=192, depth=1, num_heads=3, patch_size=8, image_size=(32, 32), layer_scale=0.1))
    named = {re.sub(r"gamma_([12])", r"ls\1.gamma", name): tensor for name, tensor in scaled.state_dict().items()}
    torch.save({"model": named}, tmp_path / "deit3.pth")
    pixels = "--init-mean 0.485 0.456 0.406 --init-std 0.229 0.224 0.225"
    assert main(["inspect", str(tmp_path / "deit3.pth"), *pixels.split()]) == 0
    text = capsys.readouterr().out
    flags = pixels
    assert f"--init-source SOURCE {flags} --init-architecture file  # train_cls.py" in text
    assert f"--init-source SOURCE {pixels} --out backbone.safetensors" in text
    assert "timm: timm vit_*" in text and "3 heads, pixels of mean 0.485, 0.456, 0.406 and std" in text


class Counted:
    """A pickled object that writes a line to a file when it is made."""

    def __init__(self, log: str) -> None:
        self.log = log

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return _note, (self.log,)


def _note(log: str) -> None:
    with open(log, "a", encoding="utf-8") as file:
        file.write("made\n")


def test_inspect_runs_a_trusted_pickle_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, log = tmp_path / "x.pkl", tmp_path / "log"
    arrays = {f"backbone.net.{name}": tensor.numpy() for name, tensor in state().items()}
    content = {"model": arrays, "__author__": Counted(str(log))}
    path.write_bytes(pickle.dumps(content))
    assert main(["inspect", str(path)]) == 1 and not log.exists()
    main(["inspect", str(path), "--trust-pickle"])
    assert log.read_text() == "made\n"


def test_convert_says_and_keeps_what_was_concluded_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = ViT(ViTConfig(embed_dim=192, depth=1, num_heads=3, patch_size=8, image_size=(32, 32)))
    torch.save({"model": wide.state_dict(), "epoch": 3}, tmp_path / "m.pth")
    out = tmp_path / "b.safetensors"
    assert main(["convert", str(tmp_path / "m.pth"), "--init-source", "mae", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    concluded = "num_heads 3: that of the family's ViT 192 wide, not in the file"
    assert f"  note: {concluded}" in text and "left out epoch: not the entry of the weights" in text
    assert read_checkpoint(InitialWeights(path=out)).notes == (concluded,)


def test_a_head_stays_where_the_positions_alone_are_resized(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuned = {name: tensor for name, tensor in state().items() if not name.startswith("norm.")}
    head = {"fc_norm.weight": torch.ones(32), "fc_norm.bias": torch.zeros(32)}
    head |= {"head.weight": torch.randn(5, 32), "head.bias": torch.randn(5)}
    torch.save({"model": {**tuned, **head}}, tmp_path / "ft.pth")
    out = tmp_path / "ft.safetensors"
    arguments = ["convert", str(tmp_path / "ft.pth"), "--init-source", "mae", *HEADS, "--resize-to", "48", "48"]
    assert main([*arguments, "--out", str(out)]) == 0
    assert "resized pos_embed: 4x4 -> 6x6 patches" in capsys.readouterr().out
    found = read_checkpoint(InitialWeights(path=out))
    assert found.architecture.image_size == (48, 48)
    assert all(torch.equal(found.state[name], tensor) for name, tensor in head.items())
    assert main([*arguments, "--encoder-only", "--out", str(out)]) == 0
    assert "head.weight" not in read_checkpoint(InitialWeights(path=out)).state


def test_to_huggingface_says_what_lies_beside(
    training: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "vit" / "model.safetensors"
    assert main(["convert", str(training), "--init-source", "mae", "--to", "huggingface", "--out", str(out)]) == 0
    assert "  config.json (ViTModel) and preprocessor_config.json are beside it" in capsys.readouterr().out
    assert sorted(p.name for p in out.parent.iterdir()) == [
        "config.json", "model.safetensors", "preprocessor_config.json"
    ]  # fmt: skip


@pytest.mark.parametrize("target", ["own", "timm", "huggingface", "mae", "detectron2", "mmseg", "dino"])
def test_every_format_comes_back(target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "mae.pth"
    torch.save({"model": state()}, source)
    safetensors = target in ("own", "timm", "huggingface")
    there, back = tmp_path / f"model.{'safetensors' if safetensors else 'pth'}", tmp_path / "back.safetensors"
    assert main(["convert", str(source), "--init-source", "mae", *HEADS, "--to", target, "--out", str(there)]) == 0
    said = capsys.readouterr().out
    assert ("config.json is beside it: timm.create_model('local-dir:FOLDER'" in said) == (target == "timm")
    told = target in ("own", "timm")  # heads and pixels, by the header and by config.json
    declared = () if target == "own" else ("--init-source", target, *(() if told else HEADS))
    assert main(["convert", str(there), *declared, "--out", str(back)]) == 0
    returned = read_checkpoint(InitialWeights(path=back)).state
    lost = {"cls_token", "norm.weight", "norm.bias"} if target == "detectron2" else set()  # it has none of them
    assert returned.keys() == state().keys() - lost
    for name, tensor in returned.items():
        wanted = state()[name][:, 1:] if name == "pos_embed" and target == "detectron2" else state()[name]
        assert torch.equal(tensor, wanted), name


def test_our_file_says_where_it_is_from(training: Path, tmp_path: Path) -> None:
    out = tmp_path / "b.safetensors"
    assert main(["convert", str(training), "--init-source", "augreg", "--out", str(out)]) == 0
    checkpoint = read_checkpoint(InitialWeights(path=out))
    assert checkpoint.normalisation == HALF  # AugReg's constants travel with the weights
    assert checkpoint.source == "augreg"
    original = read_checkpoint(InitialWeights(path=training, source="augreg"))
    assert checkpoint.origin == f"checkpoint-3.pth, sha256 {original.sha256}"


def test_grey_images_give_what_they_gave(tmp_path: Path) -> None:
    """`sum`: one channel, or a grey image copied to five, gives the tokens of the grey image in RGB."""
    path = tmp_path / "b.safetensors"
    torch.manual_seed(0)
    vit = ViT(TINY)
    write_checkpoint(path, vit, source="mae")
    grey = torch.randn(2, 1, 32, 32)
    for channels in (1, 5):
        other, _ = changed(read_checkpoint(InitialWeights(path=path)), Changes(in_chans=channels, inflate="sum"))
        assert len(other.normalisation.mean) == channels
        inflated = ViT(other.architecture)
        load_checkpoint(inflated, other)
        # float32 sums of 3 or 5 kernels in another order
        torch.testing.assert_close(
            inflated(grey.expand(-1, channels, -1, -1)), vit(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5
        )


def test_inflation_by_hand() -> None:
    kernel = torch.tensor([3.0, 6.0, 9.0]).reshape(1, 3, 1, 1)
    assert inflate(kernel, 2, "sum").flatten().tolist() == [9.0, 9.0]  # 18 shared by two
    assert inflate(kernel, 2, "mean").flatten().tolist() == [6.0, 6.0]
    assert inflate(kernel, 4, "repeat").flatten().tolist() == [2.25, 4.5, 6.75, 2.25]  # times 3 / 4


def test_changes_of_shape_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "b.safetensors"
    write_checkpoint(path, ViT(TINY), source="mae")
    checkpoint = read_checkpoint(InitialWeights(path=path))
    coarse = ViT(ViTConfig(embed_dim=32, depth=2, num_heads=4, patch_size=16, image_size=(64, 64)))
    with pytest.raises(ValueError, match=r"patch_size 8 \(recipe: 16\).*--init-resize-patch"):
        load_checkpoint(coarse, checkpoint)
    report = load_checkpoint(coarse, checkpoint, Fit(resize_patch=True))
    assert report.resized == ("patch_embed.proj.weight: 8 -> 16 pixels, bicubic",)
    assert main(["convert", str(path), "--in-chans", "1", "--out", str(tmp_path / "c.safetensors")]) == 1
    assert "3 channels to 1: say how with --inflate sum" in capsys.readouterr().err
    assert not (tmp_path / "c.safetensors").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--to", "tensorflow", "--out", "x.pth"], "nothing is written in the format 'tensorflow'; there are: augreg,"),
        (["--to", "own", "--out", "x.pth"], "reads a .safetensors file; name it so"),
        (["--to", "mae", "--out", "x.safetensors"], "reads a PyTorch file"),
        (["--to", "mae", "--out", "x.pkl"], "reads a PyTorch file: .pth, .pt, .bin; name it so"),
        (["--in-chans", "0", "--out", "x.safetensors"], "--in-chans 0: it must be at least 1"),
        (["--patch-size", "-8", "--out", "x.safetensors"], "--patch-size -8: it must be at least 1"),
        (["--inflate", "sum", "--out", "x.safetensors"], "the weights have 3 channels already; to how many?"),
        (["--init-source", "tim", "--out", "x.safetensors"], "no source is called 'tim'; there are: augreg, beit"),
        (
            ["--init-source", "mae", "--out", "x.safetensors"],
            "its header says that it is one of ours; declare source 'own'",
        ),
    ],
)
def test_refusals(argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_checkpoint(tmp_path / "b.safetensors", ViT(TINY), source="mae")
    assert main(["convert", str(tmp_path / "b.safetensors"), *argv]) == 1
    assert message in capsys.readouterr().err


def test_a_file_of_others_without_a_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": state()}, tmp_path / "m.pth")
    assert main(["convert", str(tmp_path / "m.pth"), "--out", str(tmp_path / "b.safetensors")]) == 1
    assert "(--init-source)" in capsys.readouterr().err


def test_the_file_that_is_read_is_never_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor through a link to it, nor as one of the files that are written beside the weights."""
    path = tmp_path / "own.safetensors"
    write_checkpoint(path, ViT(TINY), source="mae")
    (tmp_path / "symbolic.safetensors").symlink_to(path)
    os.link(path, tmp_path / "hard.safetensors")
    before = path.read_bytes()
    for out in (
        "own.safetensors",
        "symbolic.safetensors",
        "hard.safetensors",
        "../" + tmp_path.name + "/own.safetensors",
    ):
        for to in ("own", "timm", "huggingface"):
            assert main(["convert", str(path), "--to", to, "--out", str(tmp_path / out)]) == 1
            assert "would be written over" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "symbolic.safetensors"), "--out", str(path)]) == 1
    named = path.rename(tmp_path / "config.json")
    assert main(["convert", str(named), "--to", "huggingface", "--out", str(tmp_path / "model.safetensors")]) == 1
    assert "config.json: would be written over" in capsys.readouterr().err
    assert named.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "hard.safetensors", "symbolic.safetensors"]


def test_inspect_asks_for_trust_again_where_it_was_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it was trusted to read is read by the printed command too, whatever format the file has."""
    path = tmp_path / "a.pth"
    torch.save({"model": state(), "epoch": re.compile("3")}, path)
    assert main(["inspect", str(path), "--init-heads", "4"]) == 1
    assert "--trust-pickle" in capsys.readouterr().err
    assert main(["inspect", str(path), "--init-heads", "4", "--trust-pickle"]) == 0
    for line in capsys.readouterr().out.splitlines()[-2:]:
        assert " --trust-pickle" in line


@pytest.mark.parametrize("absent", ["decoder_blocks.0.mlp.fc1.weight", "decoder_pred.weight", "mask_token"])
def test_half_a_decoder_is_not_written(absent: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    decoder = {f"decoder_blocks.0.{name}": t for name, t in ViT(TINY).blocks[0].state_dict().items()}
    decoder |= {"mask_token": torch.ones(1, 1, 32), "decoder_pos_embed": torch.ones(1, 17, 32)}
    for name, shape in (("embed", (32, 32)), ("norm", (32,)), ("pred", (192, 32))):
        decoder |= {f"decoder_{name}.weight": torch.ones(shape), f"decoder_{name}.bias": torch.ones(shape[0])}
    torch.save({"model": state() | decoder}, tmp_path / "full.pth")
    torch.save({"model": {n: t for n, t in (state() | decoder).items() if n != absent}}, tmp_path / "half.pth")
    for to, out in (("mae", "out.pth"), ("huggingface", "hub/model.safetensors")):
        arguments = ["--init-source", "mae", *HEADS, "--to", to, "--out", str(tmp_path / out)]
        assert main(["convert", str(tmp_path / "half.pth"), *arguments]) == 1
        assert f"half.pth: its decoder is not whole: 1 tensors are absent ({absent})" in capsys.readouterr().err
        assert main(["convert", str(tmp_path / "half.pth"), *arguments, "--encoder-only"]) == 0
    assert (
        main(
            [
                "convert",
                str(tmp_path / "full.pth"),
                "--init-source",
                "mae",
                *HEADS,
                "--to",
                "mae",
                "--out",
                str(tmp_path / "o.pth"),
            ]
        )
        == 0
    )
