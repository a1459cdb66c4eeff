"""A study file cannot make pickles run: the command line has to say so too."""

from pathlib import Path

import pytest

from benchmark.study.prepare import Prepared, prepare
from files.digest import file_sha256
from tools.run_benchmark import TOOLS

ARM = "theirs: {init: w.pkl, init_source: detectron2, trust_pickle: true}"
TOKENS = "theirs: {pretrain: {recipe: tiny_beit, data: photos, tokenizer: d, trust_pickle: true}}"


def study(folder: Path, arm: str, *, trust_pickle: bool) -> Prepared:
    file = folder / "mine.yaml"
    file.write_text(
        f"name: mine\ndata: root\narms:\n  random: random\n  {arm}\nseeds: [0, 1]\n"
        "tasks:\n  birds: {tool: train_cls, recipe: tiny, data: birds}\ncompare: {claim: theirs, against: random}\n"
    )
    return prepare(str(file), TOOLS, studies=folder, out=folder / "out", root=folder, trust_pickle=trust_pickle)


@pytest.mark.parametrize(("arm", "flag"), [(ARM, "trust_pickle"), (TOKENS, "trust_pickle")])
def test_the_word_of_a_file_is_not_enough(arm: str, flag: str, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=rf"^mine\.yaml: arms\.theirs(\.pretrain)?\.{flag}: .* give --trust-pickle as well"
    ):
        study(tmp_path, arm, trust_pickle=False)
    assert study(tmp_path, arm, trust_pickle=True).study.arms[1].label == "theirs"


def test_a_file_that_trusts_nothing_needs_no_word(tmp_path: Path) -> None:
    assert study(tmp_path, ARM.replace("true", "false"), trust_pickle=False).study.arms[1].init == "w.pkl"


def test_a_function_that_a_file_names_needs_the_command_lines_word(tmp_path: Path) -> None:
    arm = "theirs: {pretrain: {recipe: tiny, data: photos, augment_function: 'own/mine.py:noise'}}"
    with pytest.raises(
        ValueError, match=r"arms\.theirs\.pretrain\.augment_function: 'own/mine\.py:noise' names a func"
    ):
        study(tmp_path, arm, trust_pickle=False)
    # read where the study's paths begin, and hashed before anything runs
    (run,) = (run for run in study(tmp_path, arm, trust_pickle=True).runs if run.phase == "pretrain")
    assert run.fault is not None and f"{tmp_path / 'own/mine.py'} is no file" in run.fault
    (tmp_path / "own").mkdir()
    (tmp_path / "own/mine.py").write_text("raise SystemExit  # is not run here")
    (run,) = (run for run in study(tmp_path, arm, trust_pickle=True).runs if run.phase == "pretrain")
    assert run.fault is None and tmp_path / "own/mine.py" in run.inputs
    digest = file_sha256(tmp_path / "own/mine.py")
    assert run.settings is not None and run.settings["run"]["augment_source"] == f"mine:noise sha256:{digest}"
    words = run.command
    assert words[words.index("--augment-function") + 1] == f"{tmp_path / 'own/mine.py'}:noise"


@pytest.mark.parametrize("trust_pickle", [False, True])
def test_a_file_cannot_name_a_class_that_runs(tmp_path: Path, trust_pickle: bool) -> None:
    arm = "theirs: {pretrain: {recipe: tiny, data: photos, tracker: TRACKER}}"
    with pytest.raises(ValueError, match=r"^mine\.yaml: arms\.theirs\.pretrain\.tracker: 'os:system' names a class"):
        study(tmp_path, arm.replace("TRACKER", "os:system"), trust_pickle=trust_pickle)
    assert study(tmp_path, arm.replace("TRACKER", "wandb"), trust_pickle=trust_pickle).study.arms[1].pretrain
