"""`tools/plan_run.py` on recipes of every task."""

import pytest

from tools import plan_run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pretrain", "tiny"], "pretrain tiny"),
        pytest.param(
            ["pretrain", "tiny", "--repeats", "2"], "an image counts with its 2 crops", marks=pytest.mark.sweep
        ),
        pytest.param(
            ["pretrain", "tiny", "--target", "tokens"], "frozen, beside the model (tokenizer)", marks=pytest.mark.sweep
        ),
        (["tiny_beit"], "a tokenizer of this project stands in, 8,192 tokens of 4 px"),
        pytest.param(["tiny_dvae"], "pretrain tiny_dvae", marks=pytest.mark.sweep),
        pytest.param(["tiny_moco_v3", "--strategy", "fsdp"], "keys are of one GPU's images", marks=pytest.mark.sweep),
        (["train_cls", "tiny", "--classes", "8"], "train_cls tiny"),
        (["train_det", "tiny", "--boxes-only", "--strategy", "fsdp"], "in 2 shards"),
        (["train_seg", "tiny", "--activation-checkpointing"], "with activation checkpointing"),
    ],
)
def test_every_task_is_planned(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan_run.main([*arguments, "--gpus", "2", "--gpu-memory", "1"]) == 0
    printed = capsys.readouterr().out
    assert said in printed and "--max-per-device" in printed and "GiB peak of a step" in printed


@pytest.mark.sweep
def test_a_recipe_of_several_tools_is_planned_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan_run.main(["tiny"]) == 0
    printed = capsys.readouterr().out
    tools = ("pretrain", "train_cls", "train_det", "train_seg")
    assert [line for line in printed.splitlines() if line.endswith(" tiny")] == [f"{tool} tiny" for tool in tools]
    assert printed.count("of 80.0 GiB") == 4, "without flags one GPU of 80 GiB is planned for"


@pytest.mark.sweep
def test_what_the_recipe_says_of_memory_is_planned(capsys: pytest.CaptureFixture[str]) -> None:
    # a batch of MoCo v3 in micro-batches would be another method; the recipe avoids them by activation checkpointing
    assert plan_run.main(["moco_v3_base", "--gpus", "8", "--gpu-memory", "40"]) == 0
    assert "4096 = 8 GPU(s) x 1 micro-batch(es) x 512 image(s)" in capsys.readouterr().out


@pytest.mark.slow
def test_a_huge_model_is_planned_without_memory_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    """The detector has 2.5 GiB of weights in float32, and as much again three times over for training."""
    assert plan_run.main(["vitdet_huge", "--gpus", "64", "--gpu-memory", "80", "--tflops", "300"]) == 0
    printed = capsys.readouterr().out
    millions = float(printed.split("parameters: ")[1].split(" M")[0])
    assert 632 < millions < 700  # ViT-H/14 has 632 M (MAE, table 3), the detector the rest
    assert "GPU-hours, at 300 TFLOP/s x 0.35 (an assumption" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing", "--gpus", "1", "--gpu-memory", "1"], "no recipe is called 'nothing'; there are: "),
        (["train_seg", "mae_base_mmseg", "--gpus", "1", "--gpu-memory", "0.1"], "GiB of a device"),
        (["train_seg", "mae_base_mmseg", "--gpus", "0", "--gpu-memory", "1"], "both must be above zero"),
        (["train_seg", "tiny", "--gpus", "3", "--gpu-memory", "1"], "cannot be shared by 3 devices"),
        (["tiny_beit", "--repeats", "2", "--gpus", "1", "--gpu-memory", "1"], "'tiny_beit' has no use for --repeats"),
        (["tiny_beit", "--tokenizer", "no.safetensors", "--gpus", "1", "--gpu-memory", "1"], "no.safetensors: "),
    ],
)
def test_wrong_flags_are_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan_run.main(arguments) == 1
    assert message in capsys.readouterr().err
