"""Whether a tokenizer's pickles may run is the command line's word alone: no record and no config.json grants it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mae_transfer.tasks import TASKS
from pretraining.mae.config import MAEConfig
from pretraining.mae.task import token_target
from pretraining.recipes import RECIPES
from tools.evaluate import main
from tools.pretrain import main as pretrain
from tools.reconstruct import main as reconstruct


class Marker:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder of DALL-E's two files, which write `made` beside it where they are read."""
    folder = tmp_path / "dall_e"
    folder.mkdir()
    for name in ("encoder.pkl", "decoder.pkl"):
        torch.save(Marker(tmp_path / "made"), folder / name)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        (tmp_path / "data" / split).mkdir(parents=True)
        Image.new("RGB", (64, 64)).save(tmp_path / "data" / split / "a.png")
    return tmp_path / "data"


@pytest.fixture
def config(hostile: Path) -> dict[str, Any]:
    """By task, configurations that claim trust, as a foreign record or config.json may."""
    claims: dict[str, Any] = {
        "tokenizer": str(hostile),
        "tokenizer_kind": "dall_e",
    }
    return {
        "mae": replace(RECIPES["tiny"](), target="tokens", **claims),
        "beit": replace(RECIPES["tiny_beit"](), **claims),
    }


@pytest.mark.parametrize("task", ["mae", "beit"])
def test_a_configuration_grants_nothing(task: str, config: dict[str, Any], data: Path, tmp_path: Path) -> None:
    message = r"encoder\.pkl: a pickle, which can run any code.*--trust-pickle"
    with pytest.raises(ValueError, match=message):
        TASKS[task].build(config[task], data=data, init=None)
    if isinstance(config[task], MAEConfig):
        with pytest.raises(ValueError, match=message):
            token_target(config[task], RECIPES["tiny"]().normalisation)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("task", ["mae", "beit"])
def test_the_command_line_does(task: str, config: dict[str, Any], data: Path) -> None:
    """It goes as far as the package that the pickles need, which is asked for after trust."""
    with pytest.raises(ValueError, match="holds classes of the package dall_e"):
        TASKS[task].build(config[task], data=data, init=None, trust_tokenizer=True)


def test_a_run_of_others_is_opened_without_running_anything(
    config: dict[str, Any], hostile: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    flags = ["--data", str(data), "--out", str(run), "--steps", "1", "--batch-size", "1", "--workers", "0"]
    assert pretrain(["tiny", *flags]) == 0
    record = json.loads((run / "record.json").read_text())
    record.pop("sha256", None)  # as one who edits it would
    claims = {"target": "tokens", "tokenizer": str(hostile), "tokenizer_kind": "dall_e"}
    record["config"] |= claims | {"trust_tokenizer_pickle": True}
    (run / "record.json").write_text(json.dumps(record))
    kept = json.loads((run / "config.json").read_text())
    kept["config"] |= {"trust_tokenizer_pickle": True}
    (run / "config.json").write_text(json.dumps(kept))
    capsys.readouterr()
    assert reconstruct([str(run), str(data), "--out", str(tmp_path / "pictures")]) == 1
    assert main([str(run)]) == 1
    again = [
        "tiny",
        *flags,
        "--resume",
        "--target",
        "tokens",
        "--tokenizer",
        str(hostile),
        "--tokenizer-kind",
        "dall_e",
    ]
    assert pretrain(again) == 1
    assert capsys.readouterr().err.count("--trust-pickle") == 3
    assert not (tmp_path / "made").exists()
