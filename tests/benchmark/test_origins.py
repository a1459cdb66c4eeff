"""What the arms were pre-trained on, in the table of costs; no word that unequal data are equal."""

from dataclasses import replace
from typing import Any

import pytest

from benchmark.compare.comparison import Comparison, compare
from benchmark.compare.records import open_store
from benchmark.report.cost_table import cost_grid
from benchmark.report.export import to_markdown
from benchmark.report.html import to_html
from benchmark.report.tables import record_lines
from mae_transfer.tasks import TASKS
from tests.benchmark.conftest import make_record

MAE = {"weights_name": "hf:timm/vit_base_patch16_224.mae@" + 40 * "a"}
LABELS = {"weights_name": "hf:timm/vit_base_patch16_224.augreg_in21k@" + 40 * "b"}
DEIT = {"weights_path": "/elsewhere/deit_base_patch16_224-b5f2ef4d.pth"}
BEIT_V2 = {"weights_path": "/elsewhere/beitv2_base_patch16_224_pt1k.pth"}
DINO = {"weights_path": "/elsewhere/dino_vitbase16_pretrain.pth"}


def comparison_of(study: Any) -> Comparison:
    return compare(open_store(study.root, TASKS), resamples=0)


def column(comparison: Comparison) -> dict[str, str]:
    grid = cost_grid(comparison)
    place = grid.head.index("pre-trained on")
    return {row[0]: row[place] for row in grid.rows}


def test_the_catalogue_tells_the_data_of_weights_by_name_and_of_known_files(study: Any) -> None:
    study.transfer("classification", "random", [50.0, 51.0])
    for arm, weights in (("mae", MAE), ("augreg", LABELS), ("dino", DINO), ("own", {})):
        study.transfer("classification", arm, [60.0, 61.0], **weights)
    assert column(comparison_of(study)) == {
        **{"random init": "nothing", "MAE": "ImageNet-1K (no labels)", "augreg": "ImageNet-21K (labels)"},
        **{"dino": "ImageNet-1K (no labels)", "own": "not known"},
    }


def test_a_pretraining_here_goes_before_names_and_mixed_weights_are_all_said(study: Any) -> None:
    study.pretrain("mae", {"val_loss": 0.5}, data="/datasets/imagenet")
    study.transfer("classification", "mae", [60.0], **MAE)
    study.transfer("classification", "mixed", [60.0], **MAE)
    changed = {**LABELS, "run_id": "other"}
    study.add("more", replace(make_record("classification", "mixed", 1, {"top1": 61.0}), **changed))
    assert column(comparison_of(study)) == {
        "MAE": "imagenet (here)",
        "mixed": "ImageNet-1K (no labels); ImageNet-21K (labels)",
    }


@pytest.mark.parametrize("name", ["hf:", "https://", "timm:a b", ""])
def test_a_name_that_is_none_is_not_known(name: str, study: Any) -> None:
    study.transfer("classification", "a", [60.0], weights_name=name, weights_path=None)
    assert column(comparison_of(study)) == {"a": "not known"}


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (MAE, LABELS, "The arms were pre-trained on different"),
        (MAE, {}, "The arms were not known to be pre-trained on the same"),
        ({}, {}, "The arms were not known to be pre-trained on the same"),
        (MAE, DINO, None),
        (MAE, DEIT, None),  # labels are what a study asks about
        (MAE, BEIT_V2, "The arms were pre-trained on different"),  # its tokenizer saw CLIP's
    ],
)
def test_unequal_data_are_said_and_never_called_equal(
    first: dict[str, str], second: dict[str, str], said: str | None, study: Any
) -> None:
    study.transfer("classification", "mae", [60.0, 61.0], **first)
    study.transfer("classification", "other", [50.0, 51.0], **second)
    comparison = comparison_of(study)
    found = [line.partition(" data (")[0] for line in record_lines(comparison) if line.startswith("The arms were")]
    assert found == ([] if said is None else [said])
    for page in (to_markdown(comparison), to_html(comparison)):
        assert "pre-trained on" in page and "matched" not in page.lower()
        assert said is None or said in page
