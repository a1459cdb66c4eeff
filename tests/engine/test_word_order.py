"""Words of a command line before, between and behind the flags of a tool."""

from pathlib import Path
from typing import Any

import pytest

from engine.launch import configured, parse
from engine.spec import of_tool
from engine.word_order import words_first
from mae_transfer.tasks import TASKS
from tools import check_data, convert_data, measure_cost, predict, run_benchmark
from tools.convert_checkpoint import Convert, Inspect, List, Push

CHECKPOINT: Any = Inspect | Convert | List | Push

# one command line as tyro takes it, and the orders in which a user may write it
ORDERS: tuple[tuple[Any, str, tuple[str, ...]], ...] = (
    (
        CHECKPOINT,
        "list mae full --size huge --licence cc",
        (
            "list --size huge mae full --licence cc",
            "list mae --size huge full --licence cc",
            "list --size huge mae --licence=cc full",
            "list --size huge --licence cc mae full",
        ),
    ),
    (
        CHECKPOINT,
        "push RUN --licence mit --seeds A B --private",
        ("push --seeds A B RUN --licence mit --private", "push --private --licence mit --seeds A B RUN"),
    ),
    (
        CHECKPOINT,
        "convert FILE --out O --resize-to 224 448 --encoder-only",
        (
            "convert --encoder-only --resize-to 224 448 FILE --out O",
            "convert --out O --encoder_only FILE --resize_to 224 448",
        ),
    ),
    (predict.Args, "RUN a b --out o --pictures 3", ("RUN a --out o b --pictures 3", "--pictures 3 RUN --out o a b")),
    (measure_cost.Args, "RUN a b --batch 4", ("RUN a --batch 4 b", "--batch 4 RUN a b", "--batch=4 RUN a b")),
    (
        run_benchmark.Args,
        "demo --seeds 0 1 --status",
        ("--seeds 0 1 demo --status", "--status --seeds 0 1 demo", "--seeds 0 1 --status demo"),
    ),
    (
        check_data.Form,
        "coco DIR --annotations a.json b.json --sheet s",
        ("coco --annotations a.json b.json DIR --sheet s", "coco --sheet s --annotations a.json b.json DIR"),
    ),
    (convert_data.Form, "table FILE --out o --columns.file i", ("table --columns.file i FILE --out o",)),
)


@pytest.mark.parametrize(
    ("form", "plain", "other"), [(form, plain, other) for form, plain, others in ORDERS for other in others]
)
def test_words_stand_anywhere_among_the_flags_of_a_tool(form: Any, plain: str, other: str) -> None:
    assert parse(form, other.split(), doc=None) == parse(form, plain.split(), doc=None)


def test_the_words_of_a_search_are_all_taken() -> None:
    found = parse(CHECKPOINT, ["list", "mae", "--size", "huge", "full"], doc=None)
    assert (found.words, found.size) == (("mae", "full"), "huge")


def test_a_flag_of_any_number_of_values_keeps_all_but_the_words_that_are_missing() -> None:
    found = parse(run_benchmark.Args, ["--seeds", "0", "1", "demo", "--status"], doc=None)
    assert (found.study, found.seeds, found.status) == ("demo", (0, 1), True)


def test_a_recipe_is_found_behind_flags_of_any_number_of_values() -> None:
    specs = of_tool(TASKS, "train_cls")
    plain = "mae_base --data d --out o --init-mean 0.5 0.5 0.5 --init-std 0.2 0.2 0.2"
    other = "--init-mean 0.5 0.5 0.5 --init-std 0.2 0.2 0.2 mae_base --data d --out o"
    assert configured(other.split(), specs, doc=None) == configured(plain.split(), specs, doc=None)
    args, _ = configured(["--arm", "mae_base", "--data", "d", "--out", "o", "mae_base"], specs, doc=None)
    assert (args.recipe, args.arm, args.data) == ("mae_base", "mae_base", Path("d"))


@pytest.mark.parametrize(
    "text",
    ["list mae --sise huge full", "list mae -- --size", "lists mae --size huge full", "push --seeds RUN --licence mit"],
)
def test_what_cannot_be_put_in_order_is_refused_as_it_is_written(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert words_first(CHECKPOINT, text.split()) == text.split()
    if "--" not in text.split():  # behind it all are words
        with pytest.raises(SystemExit) as stopped:
            parse(CHECKPOINT, text.split(), doc=None)
        assert stopped.value.code == 2 and capsys.readouterr().err


def test_help_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(CHECKPOINT, ["list", "--help"], doc="Of the tool.")
    assert stopped.value.code == 0
    assert capsys.readouterr().out.count("Search the public checkpoints") == 1
