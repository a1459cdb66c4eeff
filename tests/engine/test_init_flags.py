"""The flags of initial weights: one declaration that every tool that starts from weights takes."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from backbones.sources import SOURCES
from backbones.weights.declaration import InitialWeights
from engine.init_flags import InitFlags
from engine.launch import TrainArgs, parse
from tools import convert_checkpoint, eval_cls, evaluate, export_onnx, predict, probe, reconstruct, robustness

COMMAND = (
    "--init w.pth --init-source mae --init-heads 3 --init-image-size 24 40 --init-mean 0.5 0.4 0.3 --init-std 1 1 1 "
    "--init-resize-patch --init-architecture file --trust-pickle"
)
LIGHT = (
    "backbones.config",
    "engine.config",
    "engine.records.record",
    "scenes.config",
)  # what tables and plans begin with


def test_a_command_line_declares_every_field() -> None:
    declared = parse(InitFlags, COMMAND.split(), doc=None).weights()
    assert declared == InitialWeights(
        path=Path("w.pth"), source="mae", num_heads=3, image_size=(24, 40), resize_patch=True, architecture="file",
        mean=(0.5, 0.4, 0.3), std=(1.0, 1.0, 1.0), trust_pickle=True,
    )  # fmt: skip
    assert declared is not None and declared.options()["mean"] == (0.5, 0.4, 0.3)
    assert "mean" not in InitialWeights(path=Path("w.pth")).options()  # records of before, and their probes' caches
    left = [f.name for f in fields(InitialWeights) if getattr(declared, f.name) == f.default]
    assert left == ["normalisation"]  # a record's word, which no flag gives
    assert parse(InitFlags, [], doc=None).weights() is None


@pytest.mark.parametrize("word", ["--init-source mae", "--init-image-size 24 40", "--init-resize-patch"])
@pytest.mark.parametrize("flags", [InitFlags, TrainArgs, probe.ProbeArgs])
def test_a_declaration_needs_a_file(flags: type[InitFlags], word: str) -> None:
    needed = [] if flags is InitFlags else ["vit_demo_patch8", "--data", "d", "--out", "o"]
    with pytest.raises(ValueError, match=r"of the initial weights declared, but no file; give --init FILE"):
        parse(flags, [*needed, *word.split()], doc=None).weights()
    assert parse(flags, [*needed, *word.split(), "--init", "w.pth"], doc=None).weights() is not None


@pytest.mark.parametrize("flags", [TrainArgs, probe.ProbeArgs, reconstruct.Args, convert_checkpoint.Convert])
def test_help_names_every_family(flags: type[object], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(flags, ["--help"], doc=None)
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"Family of the weights file: {', '.join(SOURCES)}." in said
    assert "Attention heads of the weights, where neither the file nor a published width tells." in said


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (eval_cls.Args, "for files of a trusted origin alone"),
        *(
            (tool.Args, "Read pickles, which can run any code while they are read: the tokenizer of a run")
            for tool in (evaluate, predict, export_onnx, robustness)
        ),
    ],
)
def test_help_says_what_trust_is_for(flags: type[object], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(flags, ["--help"], doc=None)
    assert words in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_records_and_configurations_are_read_without_torch() -> None:
    program = f"import sys, {', '.join(LIGHT)}; print([m for m in ('torch', 'timm') if m in sys.modules])"
    path = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=path)
    assert done.stdout.strip() == "[]"
