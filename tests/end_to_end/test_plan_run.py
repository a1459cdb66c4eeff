"""`tools/plan_run.py` on recipes of every task."""

import pytest

from tools import plan_run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tiny", "--task", "pretrain"], "pretrain tiny"),
        (["tiny", "--task", "pretrain", "--repeats", "2"], "an image counts with its 2 crops"),
        (["tiny", "--task", "pretrain", "--target", "tokens"], "frozen, beside the model (tokenizer)"),
        (["tiny_beit"], "a tokenizer of this project stands in, 8,192 tokens of 4 px"),
        (["tiny_dvae"], "pretrain tiny_dvae"),
        (["tiny_moco_v3", "--strategy", "fsdp"], "keys are of one GPU's images"),
        (["tiny", "--task", "train_cls", "--classes", "8"], "train_cls tiny"),
        (["tiny", "--task", "train_det", "--boxes-only", "--strategy", "fsdp"], "in 2 shards"),
        (["tiny", "--task", "train_seg", "--activation-checkpointing"], "with activation checkpointing"),
    ],
)
def test_every_task_is_planned(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan_run.main([*arguments, "--gpus", "2", "--gpu-memory", "1"]) == 0
    printed = capsys.readouterr().out
    assert said in printed and "--max-per-device" in printed and "GiB peak of a step" in printed


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
        (["tiny", "--gpus", "1", "--gpu-memory", "1"], "are of pretrain, train_cls, train_det, train_seg; add --task"),
        (["nothing", "--gpus", "1", "--gpu-memory", "1"], "no recipe is called 'nothing'; there are: "),
        (["mae_base_mmseg", "--task", "train_seg", "--gpus", "1", "--gpu-memory", "0.1"], "GiB of a device"),
        (["mae_base_mmseg", "--task", "train_seg", "--gpus", "0", "--gpu-memory", "1"], "both must be above zero"),
        (["tiny", "--task", "train_seg", "--gpus", "3", "--gpu-memory", "1"], "cannot be shared by 3 devices"),
        (["tiny_beit", "--repeats", "2", "--gpus", "1", "--gpu-memory", "1"], "'tiny_beit' has no use for --repeats"),
        (["tiny_beit", "--tokenizer", "no.safetensors", "--gpus", "1", "--gpu-memory", "1"], "no.safetensors: "),
    ],
)
def test_wrong_flags_are_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan_run.main(arguments) == 1
    assert message in capsys.readouterr().err
