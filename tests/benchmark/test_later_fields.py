"""Runs of before and after a field came are compared by its default, and a finished run of before is not run again."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from backbones.config import FAMILY
from benchmark.compare.comparison import Comparison, Row, compare
from benchmark.compare.records import open_store
from benchmark.runner.recorded import other_settings
from benchmark.study.run import Run
from benchmark.study.tool import Job
from classification.probe.run import ProbeConfig
from classification.recipes import RECIPES
from detection.recipes.all import RECIPES as DETECTION
from engine.config import as_json
from engine.records.record import RunRecord
from engine.spec import with_later_fields as of_table
from mae_transfer.tasks import TASKS
from pretraining.recipes import RECIPES as PRETRAINING
from segmentation.recipes import RECIPES as SEGMENTATION

with_later_fields = partial(of_table, TASKS)


def top1(comparison: Comparison) -> Row:
    return next(row for row in comparison.rows if row.metric.name == "top1")


def test_a_field_that_came_later_counts_as_its_default(study: Any, record: Callable[..., RunRecord]) -> None:
    """A run of before and one of now: equal where the new fields have their defaults, else refused by their name."""
    whole = json.loads(json.dumps(as_json(RECIPES["tiny"]())))
    before = copy.deepcopy(whole)
    del before["tuned_blocks"], before["run"]["ema_decay"], before["run"]["optim"]["clip_norm"]
    for seed, config in ((0, before), (1, whole)):
        study.add(f"mae{seed}", record("classification", "mae", seed, {"top1": 61.0}, config=config))
        study.add(f"sup{seed}", record("classification", "supervised", seed, {"top1": 60.0}, config=whole))

    def refused() -> tuple[str, ...]:
        found = compare(open_store(study.root, TASKS), resamples=0)
        return top1(found).refused

    assert not refused()
    whole["run"]["ema_decay"] = 0.9
    study.add("sup1", record("classification", "supervised", 1, {"top1": 60.0}, config=whole))
    assert refused() == ("config.run.ema_decay: None -> 0.9 (from mae0 to sup1)",)


def test_every_recorded_configuration_is_one_of_today() -> None:
    """Of all tasks: nothing is added to a whole one, and what is taken out comes back."""
    recipes = {"classification": RECIPES, "detection": DETECTION, "segmentation": SEGMENTATION, "mae": PRETRAINING}
    for task, named in recipes.items():
        for name in ("tiny", "small"):
            whole = json.loads(json.dumps(as_json(named[name]())))
            assert with_later_fields(task, whole) == whole
            before = copy.deepcopy(whole)
            del before["run"]["max_megapixels"]
            assert with_later_fields(task, before) == whole
    probe = {**json.loads(json.dumps(as_json(ProbeConfig(backbone=FAMILY["vit_demo_patch8"])))), "leading": "x"}
    assert with_later_fields("knn", {k: v for k, v in probe.items() if k != "pooling"}) == probe
    assert with_later_fields("classification", {"odd": 1}) == {"odd": 1} == with_later_fields("theirs", {"odd": 1})


def test_a_finished_run_of_before_is_not_run_again(record: Callable[..., RunRecord], tmp_path: Any) -> None:
    whole = json.loads(json.dumps(as_json(RECIPES["tiny"]())))
    before = copy.deepcopy(whole)
    del before["tuned_blocks"], before["run"]["ema_decay"]
    at = {"out": tmp_path, "logs": tmp_path, "records": (tmp_path,)}
    run = Run(name="x", phase="transfer", kind="x", tool="train_cls", recipe="tiny", job=None, **at)
    done = record("classification", "random", 0, {"top1": 1.0}, config=before)
    run = replace(run, job=Job(args=None, config=None, recipe=None, record=lambda *_: whole, flags={}))
    assert other_settings(run, done, with_later_fields) == []
    assert other_settings(run, done)
    run = replace(
        run, job=Job(args=None, config=None, recipe=None, record=lambda *_: {**whole, "tuned_blocks": 3}, flags={})
    )
    assert other_settings(run, done, with_later_fields) == ["tuned_blocks: 1 -> 3"]


def test_arms_of_different_augmentation_are_named_by_its_source(study: Any, record: Callable[..., RunRecord]) -> None:
    """Where the same file lies makes no difference; another file does."""
    whole = json.loads(json.dumps(as_json(RECIPES["tiny"]())))
    for seed, (mine, theirs) in enumerate([("a", "a"), ("a", "b")]):
        for arm, path, source in (("mae", "here.py:f", mine), ("supervised", "there.py:f", theirs)):
            config = copy.deepcopy(whole)
            config["run"] |= {"augment_function": path, "augment_source": f"mine:f sha256:{source}"}
            study.add(f"{arm}{seed}", record("classification", arm, seed, {"top1": 60.0}, config=config))
        refused = top1(compare(open_store(study.root, TASKS), resamples=0)).refused
        line = "config.run.augment_source: mine:f sha256:a -> mine:f sha256:b (from mae0 to supervised1)"
        assert refused == (() if seed == 0 else (line,))
