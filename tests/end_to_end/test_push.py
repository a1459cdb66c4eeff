"""`convert_checkpoint.py push`: the folder of a run opens again by --init and by timm, and goes to a hub."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants

from backbones.vit import ViT
from backbones.weights.checkpoint import leave_backbone
from backbones.weights.declaration import InitialWeights
from backbones.weights.normalisation import Normalisation
from backbones.weights.read import read_checkpoint
from engine.records.record import RunRecord, write_record
from engine.runs.card import without_folders
from files.digest import file_sha256
from mae_transfer import load_backbone
from pretraining.recipes import tiny
from tests.benchmark.conftest import make_record
from tests.hub_server import Hub, serving
from tools.convert_checkpoint import main

PIXELS = Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
MAY_WRITE = "hf_may_write"


def finished(
    folder: Path, *, final_norm: bool = True, seed: int = 3, val_loss: float = 0.25, **changes: object
) -> RunRecord:
    """A completed pre-training with the ViT that it left."""
    torch.manual_seed(5)
    folder.mkdir(parents=True)
    vit = ViT(tiny().backbone, final_norm=final_norm)
    path = leave_backbone(folder, vit, source="mae", normalisation=PIXELS)
    record = replace(
        make_record("mae", "random", seed, {"val_loss": val_loss, "other": float("nan")}),
        data="/home/somebody/photographs",
        outputs=(path.name,),
        files_sha256={path.name: file_sha256(path)},
        departures=("one | two", "run.out: /home/somebody/runs/a -> /tmp/x/b"),
        **changes,  # type: ignore[arg-type]
    )
    write_record(folder, record)
    return record


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving({}) as made:
        made.token = MAY_WRITE
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "home" / "token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield made


def test_the_folder_opens_again_and_with_timm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = tmp_path / "run", tmp_path / "run" / "hub"
    finished(run)
    assert main(["push", str(run), "--licence", "mit"]) == 0
    assert f"to use it: --init {out / 'model.safetensors'} --init-source timm" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    ours = read_checkpoint(InitialWeights(path=run / "backbone.safetensors"))
    again = read_checkpoint(InitialWeights(path=out / "model.safetensors", source="timm"))
    assert again.normalisation == PIXELS and again.architecture.num_heads == ours.architecture.num_heads
    assert again.state.keys() == ours.state.keys()
    assert all(torch.equal(again.state[name], tensor) for name, tensor in ours.state.items())
    theirs = timm.create_model(f"local-dir:{out}", pretrained=True).state_dict()
    assert torch.equal(theirs["blocks.0.attn.qkv.weight"], ours.state["blocks.0.attn.qkv.weight"])
    assert main(["push", str(run), "--licence", "mit"]) == 0  # the same again


def test_the_card_states_the_record_and_no_path_of_the_machine(tmp_path: Path) -> None:
    finished(tmp_path / "run", weights_name="hf:facebook/vit-mae-base@" + 40 * "a", weights_sha256="b" * 64)
    assert main(["push", str(tmp_path / "run"), "--licence", "cc-by-nc-4.0", "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\nlicense: cc-by-nc-4.0\nlibrary_name: timm\npipeline_tag: image-feature-extraction\n")
    for part in (
        *("# run\n", "task `mae`, recipe `tiny`. vit_demo_patch8 (width 192, depth 6, heads 6, patch 8"),
        *("| data | photographs, split train, 100 images |", "| length | 100 steps, 640 samples seen (6.4 epochs) |"),
        "its licence: Apache-2.0 on the card; converted from CC-BY-NC-4.0 weights) |",
        *("| val\\_loss | 0.25 |\n| other | no number |", "value on 50 images of split val, after the last step"),
        *("* one \\| two", "* run.out: .../a -\\> .../b", "| seed | 3 |", "--init-source timm", "code at abc"),
    ):
        assert part in text, part
    assert "somebody" not in text and str(tmp_path) not in text


def test_the_card_of_several_seeds_has_an_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0.2, 0.25 and 0.36: mean 0.27, sd sqrt((0.07² + 0.02² + 0.09²) / 2) = 0.08185; t of 2 degrees is 4.3027."""
    for seed, val_loss in ((3, 0.25), (0, 0.2), (7, 0.36)):
        finished(tmp_path / f"seed{seed}", seed=seed, val_loss=val_loss)
    arguments = ["push", str(tmp_path / "seed3"), "--licence", "mit", "--out", str(tmp_path / "out"), "--seeds"]
    assert main([*arguments, str(tmp_path / "seed0"), str(tmp_path / "seed7")]) == 0
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "of these weights (seed 3) | mean of the seeds | sd | 95 % interval |\n|---|---|---|---|---|\n" in text
    assert "| val\\_loss | 0.25 | 0.27 | 0.08185 | 0.06666 to 0.4733 |\n" in text
    assert "| other | no number | no number | no number | no number |\n" in text
    assert "3 runs with the seeds 0, 3, 7. The interval is Student's t" in text and "One run" not in text
    capsys.readouterr()
    assert main([*arguments, str(tmp_path / "seed3")]) == 1
    assert "seed3: not the same run with other seeds: seed: 3 of arm tiny is recorded twice" in capsys.readouterr().err
    finished(tmp_path / "longer", seed=8, steps=200, total_steps=200)
    assert main([*arguments, str(tmp_path / "longer")]) == 1
    assert "total_steps: 100 -> 200 (from seed3 to longer)" in capsys.readouterr().err


def test_what_timm_has_not_is_written_as_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(tmp_path / "run", final_norm=False)
    assert main(["push", str(tmp_path / "run"), "--licence", "mit", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "timm has no such model (has neither norm nor fc_norm" in said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "backbone.safetensors"]
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "library_name" not in text and "timm does not open it: has neither norm" in text
    assert load_backbone(tmp_path / "out" / "backbone.safetensors").normalisation == PIXELS


@pytest.mark.parametrize("final_norm", [True, False])
def test_a_push_is_one_commit_that_init_opens_by_name(
    final_norm: bool,
    server: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_TOKEN", MAY_WRITE)
    finished(tmp_path / "run", final_norm=final_norm)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "private.txt").write_text("not for others")
    arguments = ["push", str(tmp_path / "run"), "--licence", "mit", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0  # first to look at, then to send
    assert "hf:OWNER/run" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    capsys.readouterr()
    assert main([*arguments, "--to", "me/mine"]) == 0
    said = capsys.readouterr().out
    (sha, files), *more = server.repositories["me/mine"].commits.items()
    weights = "model.safetensors" if final_norm else "backbone.safetensors"
    assert not more and files.keys() == {"README.md", weights} | ({"config.json"} if final_norm else set())
    assert files[weights] == (tmp_path / "out" / weights).read_bytes() and b"# mine\n" in files["README.md"]
    source = "timm" if final_norm else "own"
    assert f"uploaded; to use it: --init hf:me/mine@{sha}" in said and MAY_WRITE not in said
    backbone = load_backbone("hf:me/mine", source=source)
    assert backbone.normalisation == PIXELS
    ours = load_backbone(tmp_path / "run" / "backbone.safetensors").vit.state_dict()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in backbone.vit.state_dict().items())
    if final_norm:
        theirs = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
        assert theirs.num_classes == json.loads(files["config.json"])["num_classes"] == 0
    assert main([*arguments, "--to", "me/mine"]) == 0  # the model is there: another commit of it
    assert len(server.repositories) == 1


@pytest.mark.parametrize(
    ("token", "saved", "said"),
    [
        (None, None, "me/mine: no token. Make one that may write at "),
        ("hf_wrong", None, "refused the token of HF_TOKEN (401): it is no longer valid, or may not write"),
        ("hf_reads_only", None, "refused the token of HF_TOKEN (403)"),
        (None, "hf_wrong", "refused the token in "),
    ],
)
def test_a_refused_token_is_named_and_never_shown(
    token: str | None,
    saved: str | None,
    said: str,
    server: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    if saved is not None:
        path = Path(constants.HF_TOKEN_PATH)
        path.parent.mkdir()
        path.write_text(saved)
    finished(tmp_path / "run")
    assert main(["push", str(tmp_path / "run"), "--licence", "mit", "--to", "me/mine"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line and "hf_wrong" not in line and "hf_reads" not in line
    assert not server.repositories and f"{os.environ['HF_ENDPOINT']}/settings/tokens" in line


def test_a_hub_that_is_not_there_is_said(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(tmp_path / "run")
    monkeypatch.setenv("HF_TOKEN", MAY_WRITE)
    arguments = ["push", str(tmp_path / "run"), "--licence", "mit", "--to", "me/mine"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert main(arguments) == 1
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(arguments) == 1
    assert "http://127.0.0.1:9 is not reached" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "argv", "said"),
    [
        ({"status": "interrupted"}, [], "the run is interrupted, at step 100 of 100; finish it."),
        ({"task": "other"}, [], "of the task 'other', which is none of mae, "),
        ({}, ["--licence", "Apache 2"], "--licence Apache 2: it should be the hub's identifier in lower case"),
        ({}, ["--to", "mine"], "--to mine: it should be OWNER/NAME."),
        ({}, ["--out", "{run}"], "would be written over"),
    ],
)
def test_refusals(
    changes: dict[str, str], argv: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    finished(run, **changes)
    before = sorted(path.name for path in run.iterdir())
    words = [word.format(run=run) for word in argv]
    assert main(["push", str(run), *([] if "--licence" in words else ["--licence", "mit"]), *words]) == 1
    assert said in capsys.readouterr().err
    assert sorted(path.name for path in run.iterdir()) == before


def test_other_weights_than_the_records_and_another_card_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, arguments = tmp_path / "run", ["push", str(tmp_path / "run"), "--licence", "mit"]
    finished(run)
    assert main(arguments) == 0
    (run / "hub" / "README.md").write_text("mine")
    assert main(arguments) == 1
    assert "README.md: is there already and says otherwise" in capsys.readouterr().err
    leave_backbone(run, ViT(tiny().backbone), source="mae", normalisation=PIXELS)
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 1
    assert "is not the file that its record speaks of" in capsys.readouterr().err
    (run / "backbone.safetensors").unlink()
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 1
    assert "it left no backbone.safetensors" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_without_folders() -> None:
    assert without_folders("a: '/home/me/x/tok.pkl' -> /data/y, kept a/b and 1 / 2") == (
        "a: '.../tok.pkl' -> .../y, kept a/b and 1 / 2"
    )
    assert without_folders("https://host/a/b") == "https://host/a/b"
