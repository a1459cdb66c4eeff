"""Flags made from a configuration: every field once, with its docstring and the recipe's value."""

from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any

import pytest
import tyro
from hypothesis import given
from hypothesis import strategies as st

from detection.config import DetectionConfig
from engine.config import COMPUTED, FILE, Duration
from engine.flags import Leaf, leaves, parse_with_config
from engine.launch import TrainArgs, configured
from engine.spec import of_tool
from mae_transfer.tasks import TASKS

FIVE = Duration(5)
RECIPES = [(spec.tool, name, recipe) for spec in TASKS.values() for name, recipe in spec.recipes.items()]


@dataclass(frozen=True, kw_only=True)
class Slide:
    """An optional part of one field."""

    stride: int


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part."""

    kind: str = "a"
    """Of the part."""
    width: int = 3
    """In pixels."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """A configuration."""

    part: Part = Part()
    """One."""
    other: Part = Part(kind="b")
    """Another, whose fields have the same names."""
    kind: str = "top"
    """Of all."""
    slide: Slide | None = None
    """Stride of the windows; None has none."""
    warmup: Duration | None = FIVE
    """Linear warm-up,
    on two lines."""
    names: Annotated[str | None, FILE] = None
    """A file."""
    mean: Annotated[float | None, COMPUTED] = None
    """Computed."""


@dataclass(frozen=True, kw_only=True)
class Args:
    """Of the tool."""

    recipe: Annotated[str, tyro.conf.Positional]
    """Name."""
    out: str = "x"
    """Folder."""


def small() -> Config:
    """The smallest."""
    return Config()


def parsed(*argv: str) -> Any:
    return parse_with_config(Args, {"small": small}, ["small", *argv], doc="A tool.")[1]


def test_every_field_is_a_flag_once() -> None:
    found = {leaf.name: leaf for leaf in leaves(small())}
    assert [*found] == ["part_kind", "part_width", "other_kind", "other_width", "kind", "slide", "warmup", "names"]
    assert found["warmup"].doc == "Linear warm-up, on two lines." and found["names"].is_file
    assert found["other_kind"].default == "b" and not found["kind"].is_file


def test_values_reach_their_place() -> None:
    assert parsed() == small()
    assert parsed("--other-kind", "c", "--slide", "7") == Config(other=Part(kind="c"), slide=Slide(stride=7))
    assert parsed("--warmup", "2.5epochs").warmup == Duration(2.5, "epochs")
    assert parsed("--warmup", "None").warmup is None and parsed("--warmup", "9").warmup == Duration(9, "steps")


@given(value=st.floats(0, 1e9), unit=st.sampled_from(["steps", "epochs", "samples"]))
def test_a_length_reads_what_it_writes(value: float, unit: Any) -> None:
    assert Duration.from_text(f"{value!r}{unit}") == Duration(value, unit)


@pytest.mark.parametrize("text", ["", "ten", "-1steps", "3weeks", "nan", "inf"])
def test_what_is_no_length_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no length; write 500, 500steps, 20epochs or 1e6samples"):
        Duration.from_text(text)


@pytest.mark.parametrize(("tool", "name", "recipe"), RECIPES, ids=[f"{tool}-{name}" for tool, name, _ in RECIPES])
def test_flags_of_every_recipe_have_one_name_each_and_a_text(tool: str, name: str, recipe: Any) -> None:
    config = recipe()
    found = leaves(config)
    names = [leaf.name for leaf in found]
    own = {f.name for f in fields(TrainArgs)}
    assert len({*names}) == len(names) and not own & {*names}
    assert not [leaf.name for leaf in found if not leaf.doc]
    given = [name, "--data", "d", "--out", "o"]
    assert configured(given, of_tool(TASKS, tool), doc=None)[1] == config
    assert _count(config) == len(found)


def _count(config: Any) -> int:
    """Return the fields at any depth that are set by a flag, counted another way than `leaves` does."""
    # a detector's image size takes the place of the two of its ViT
    total = -2 * isinstance(config, DetectionConfig)
    for f in fields(config):
        value = getattr(config, f.name)
        if f.name in ("length", "normalisation", "class_token", "augment_source"):
            continue  # --steps and --epochs; computed
        total += _count(value) if is_dataclass(value) and not isinstance(value, Duration) else 1
    return total


def test_flags_of_one_name_mean_one_thing_in_every_recipe_of_a_tool() -> None:
    for tool in {tool for tool, _, _ in RECIPES}:
        kinds: dict[str, set[Any]] = {}
        for _, _, recipe in (item for item in RECIPES if item[0] == tool):
            for leaf in leaves(recipe()):
                kinds.setdefault(leaf.name, set()).add(_family(leaf))
        assert {name: found for name, found in kinds.items() if len(found) > 1} == {}


def _family(leaf: Leaf) -> bool:
    return leaf.is_file


def test_help_shows_what_a_run_needs_and_help_all_shows_all(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["tools/train_cls.py"])
    texts = {}
    for flag in ("--help", "--help-all"):
        with pytest.raises(SystemExit) as left:
            configured(["mae_base", flag], of_tool(TASKS, "train_cls"), doc="Doc.")
        assert left.value.code == 0
        texts[flag] = capsys.readouterr().out
    assert "--base-lr" in texts["--help"] and "--box-convs" not in texts["--help-all"]
    assert "--warmup-start" not in texts["--help"] and "--warmup-start" in texts["--help-all"]
    assert "more flags: train_cls.py mae_base --help-all" in texts["--help"]
    assert "(default: 20epochs)" not in texts["--help"]
    assert "5epochs" in texts["--help-all"]  # the recipe's warm-up
    assert texts["--help"].splitlines()[0] == "usage: tools/train_cls.py mae_base [-h] [OPTIONS]"


def test_a_recipe_may_stand_anywhere_and_is_named_where_it_is_misspelt() -> None:
    _, config = configured(["--data", "d", "--out", "o", "--mixup", "0.1", "tiny"], of_tool(TASKS, "train_cls"), doc="")
    assert config.augment.mixup == 0.1
    with pytest.raises(ValueError, match=r"no recipe is called 'tinny'; there are: .*\. Did you mean tiny\?"):
        configured(["tinny", "--data", "d"], of_tool(TASKS, "train_cls"), doc="")


def test_a_flag_that_would_do_nothing_is_none() -> None:
    given = ["tiny", "--data", "d", "--out", "o", "--image-size", "96"]
    _, config = configured(given, of_tool(TASKS, "train_det"), doc="")
    assert config.image_size == 96
    names = {leaf.name for leaf in leaves(config)}
    assert "image_size" in names and not {"backbone_image_size", "relative_size"} & names
