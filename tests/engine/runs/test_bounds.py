"""A record that asks for more than its checkpoint holds is refused before anything is built."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backbones.vit import ViT
from classification.recipes import RECIPES
from engine.config import as_json
from engine.records.record import write_record
from engine.runs.bounds import refuse_beyond
from engine.runs.reopen import Asked, rebuild
from pretraining.gallery import open_run
from pretraining.mae.model import MaskedAutoencoder
from pretraining.recipes import RECIPES as PRETRAINING
from tests.benchmark.conftest import make_record

TINY, MAE, MOCO, DVAE = RECIPES["tiny"](), *(PRETRAINING[name]() for name in ("tiny", "tiny_moco_v3", "tiny_dvae"))


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("built")


def sparse(path: Path, size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    return path


@pytest.mark.parametrize(
    ("config", "place"),
    [
        (replace(TINY, backbone=replace(TINY.backbone, depth=10**7)), r"config\.backbone asks for [0-9,]+ parameters"),
        (replace(TINY, backbone=replace(TINY.backbone, embed_dim=12 * 10**12)), r"config\.backbone asks for 10\^2"),
        (
            replace(TINY, backbone=replace(TINY.backbone, image_size=(8 * 10**5,) * 2, position="learned")),
            r"config\.backbone asks for",
        ),
        (replace(MAE, decoder_dim=2**20, decoder_heads=1), r"config\.decoder_dim asks for"),
        (replace(MOCO, hidden=10**6), r"config\.hidden asks for"),
        (replace(DVAE, vocabulary=10**8), r"config asks for"),
    ],
)
def test_refused(config: Any, place: str, tmp_path: Path) -> None:
    saved = sparse(tmp_path / "checkpoints/step-00000001.pt", 10**9)
    with pytest.raises(ValueError, match=rf"record\.json: {place}.*step-00000001\.pt has 1,000,000,000 bytes"):
        refuse_beyond(config, saved, tmp_path / "record.json")


def test_before_it_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sparse(tmp_path / "checkpoints/step-00000001.pt", 10**6)
    huge = replace(TINY, backbone=replace(TINY.backbone, depth=10**6))
    write_record(tmp_path, make_record("classification", "random", 0, {"top1": 1.0}, config=as_json(huge)))
    with pytest.raises(ValueError, match=r"record\.json: config\.backbone asks for"):
        rebuild(
            tmp_path,
            {"classification": SimpleNamespace(config=type(TINY), build=never, module="x", reads_tokenizer=False)},
            Asked(),
            say=never,
        )
    monkeypatch.setattr("pretraining.gallery.ViT", never)
    large = replace(MAE, decoder_depth=10**6)
    write_record(tmp_path, make_record("mae", "random", 0, {"val_loss": 1.0}, config=as_json(large)))
    with pytest.raises(ValueError, match=r"record\.json: config\.decoder_dim asks for"):
        open_run(tmp_path)


def test_what_is_real_is_never_refused(tmp_path: Path) -> None:
    """The bound is below what the parameters alone take."""
    model = MaskedAutoencoder(
        ViT(MAE.encoder),
        mask_ratio=0.75,
        decoder_dim=MAE.decoder_dim,
        decoder_depth=MAE.decoder_depth,
        decoder_heads=MAE.decoder_heads,
        normalise_target=True,
    )
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    refuse_beyond(MAE, sparse(tmp_path / "a.pt", size), tmp_path / "record.json")
    with pytest.raises(ValueError, match="asks for"):
        refuse_beyond(MAE, sparse(tmp_path / "b.pt", size // 4), tmp_path / "record.json")
