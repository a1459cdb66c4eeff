"""Study files: what is read, what is refused with which words, and the way back to the file."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.study.arms import Arm
from benchmark.study.calling import Grid
from benchmark.study.file import parse_study, read_study, study_text
from benchmark.study.spec import Study
from engine.config import Duration
from tools.run_benchmark import TOOLS

GOOD = """
name: mine
data: root
seeds: [0, 1]
arms:
  random: random
  theirs: {init: w.pth, init_source: mae, trust_pickle: true}
  mae: {pretrain: {recipe: small, data: photos, steps: 10}}
tasks:
  cars: {tool: train_seg, recipe: small, data: cars, steps: 20, search: {base_lrs: [1e-4, 2.5e-4], hold_out: 0.2}}
  birds: {tool: train_cls, recipe: small, data: birds, label_fractions: [0.1, 1], hours: 0.5}
compare: {against: theirs}
"""


def parse(text: str) -> Study:
    return parse_study(text, "mine.yaml", TOOLS)


def test_a_study_is_read() -> None:
    study = parse(GOOD)
    assert (study.name, study.data, study.seeds, study.budget.match) == ("mine", "root", (0, 1), "samples")
    assert (study.compare.claim, study.compare.against) == ("mae", "theirs")
    random, theirs, mae = study.arms
    assert random == Arm.model_construct(label="random", random=True)
    assert theirs.init == "w.pth" and theirs.options == {"init_source": "mae", "trust_pickle": True}
    assert mae.pretrain is not None
    assert (mae.pretrain.recipe, mae.pretrain.data, mae.pretrain.options) == ("small", "photos", {"steps": 10})
    cars, birds = study.tasks
    assert cars.search == Grid(base_lrs=(1e-4, 2.5e-4), hold_out=0.2) and cars.options == {"steps": 20}
    assert (birds.label_fractions, birds.hours, birds.search) == ((0.1, 1.0), 0.5, None)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("weight_decay: 1e-3", {"weight_decay": 1e-3}),  # a text in YAML 1.1
        ("steps: ['60']", {"steps": 60}),  # as copies of before have it
        ("warmup: 2epochs", {"warmup": Duration(2, "epochs")}),
        ("warmup: 30", {"warmup": Duration(30, "steps")}),
        ("eval_every: null", {"eval_every": None}),
        ("eval_every: None", {"eval_every": None}),
        ("val_split: 2017", {"val_split": "2017"}),
        ("betas: [0.9, 1]", {"betas": (0.9, 1.0)}),
        ("boundary_iou: true", {"boundary_iou": True}),
        ("compile: ['False']", {"compile": False}),
        ("test_scales: 1", {"test_scales": (1.0,)}),
    ],
)
def test_flags_are_read_as_the_types_of_the_recipe(written: str, read: dict[str, object]) -> None:
    assert parse(GOOD.replace("steps: 20", written)).tasks[0].options == read


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds: [0, 1]", "seedz: [0, 1]", r"mine\.yaml: seeds: missing"),
        ("data: root", "dta: root", r"mine\.yaml: dta: no such key; there are: .*Did you mean data\?"),
        ("steps: 20", "stepz: 20", r"mine\.yaml: tasks\.cars\.stepz: train_seg has no such flag.*Did you mean steps\?"),
        ("seeds: [0, 1]", "seeds: []", r"seeds: \[\] must be a list of one or more, for instance \[0, 1, 2\]"),
        ("seeds: [0, 1]", "seeds: [0, 0]", r"seeds: 0 comes twice; give each once"),
        ("seeds: [0, 1]", "seeds: [0, -1]", r"seeds\[1\]: -1 is not a whole number from 0"),
        ("seeds: [0, 1]", "seeds: [0, 100]", r"tasks\.cars\.search\.seed: 100 is a seed of the study"),
        ("[1e-4, 2.5e-4]", "[1e-4, fast]", r"tasks\.cars\.search\.base_lrs\[1\]: 'fast' is no number"),
        ("[1e-4, 2.5e-4]", "[1e-4, 0]", r"tasks\.cars\.search\.base_lrs\[1\]: 0 is not above 0"),
        ("hold_out: 0.2", "hold_out: 20", r"hold_out: 20 is no part; give a number between 0 and 1"),
        ("[0.1, 1]", "[10, 1]", r"label_fractions\[0\]: 10 is no fraction; give a number above 0 and at most 1"),
        ("tool: train_cls", "tool: train_clz", r"tool: 'train_clz' is not there.*Did you mean train_cls\?"),
        ("tool: train_cls, recipe: small", "tool: probe, recipe: vit_demo_patch8", r"probe takes no fraction of"),
        ("recipe: small, data: birds", "data: birds", r"tasks\.birds\.recipe: missing"),
        ("  random: random\n", "  random: randm\n", r"arms\.random: 'randm' must be a mapping"),
        ("init: w.pth,", "init: w.pth, random: true,", r"arms\.theirs\.random or init: an arm is one of"),
        ("init_source: mae", "source: mae", r"arms\.theirs\.source: .*Did you mean init_source\?"),
        ("against: theirs", "against: mae", r"compare\.against: 'mae' is not there; it is one of random, theirs"),
        ("compare: {against: theirs}", "", r"compare\.against: missing; it is one of random, theirs"),
        ("data: root", "budget: {match: sample}", r"budget\.match: 'sample' is not there.*Did you mean samples\?"),
        ("name: mine", "name: my study", r"name: 'my study' must be of letters, digits"),
        ("  random: random\n", "  no: random\n", r"arms: the key False is read as no text; put it in quotes"),
        ("data: root", "name: again", r"not readable as YAML: line 3: 'name' comes twice; keep one of them"),
        ("seeds: [0, 1]", "seeds: [0, 1", r"mine\.yaml: not readable as YAML"),
        ("steps: 20", "seed: 4", r"tasks\.cars\.seed: train_seg has no such flag"),  # the study sets it
        ("steps: 20", "batch_size: null", r"tasks\.cars\.batch_size: None is no value of a flag"),
        ("steps: 20", "steps: many", r"tasks\.cars\.steps: 'many' is no whole number"),
        ("steps: 20", "steps: true", r"tasks\.cars\.steps: True is no value of this flag; give a number"),
        ("steps: 20", "warmup: soon", r"tasks\.cars\.warmup: 'soon' is no length; write 500, 500steps"),
        ("steps: 20", "precision: 8", r"tasks\.cars\.precision: '?8'? is not there; it is one of auto, 32-true"),
        ("steps: 20", "betas: [0.9]", r"tasks\.cars\.betas"),
        ("recipe: small, data: cars", "recipe: smal, data: cars", r"cars\.recipe: no recipe is called 'smal'.*small\?"),
        ("data: root", "cluster: {gpu: 8}", r"cluster\.gpu: no such key.*Did you mean gpus\?"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ValueError, match=message):
        parse(GOOD.replace(old, new))


def test_all_that_is_wrong_is_said_at_once() -> None:
    text = GOOD.replace("data: root", "data: null").replace("seeds: [0, 1]", "seeds: [0, x]\n3: 4")
    text = text.replace("tool: train_seg", "tool: fly").replace("hours: 0.5", "hours: '-1'").replace("w.pth", '"a\\0"')
    with pytest.raises(ValueError) as raised:
        parse(text)
    assert [line.partition(";")[0] for line in str(raised.value).splitlines()] == [
        "mine.yaml: the key 3 is read as no text",
        "mine.yaml: data: None is no text",
        "mine.yaml: seeds[1]: 'x' is not a whole number from 0.",
        "mine.yaml: arms.theirs.init: 'a\\x00' is no path",
        "mine.yaml: tasks.cars.tool: 'fly' is not there",
        "mine.yaml: tasks.birds.hours: '-1' is not above 0.",
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("data: root", "scenes: {x: {out: /elsewhere}}", r"scenes\.x\.out: make_scenes has no such flag"),
        ("data: root", "scenes: {x: {'out=/elsewhere': true}}", r"make_scenes has no such flag"),
        ("data: root", "scenes: {../x: {}}", r"scenes\.\.\./x: '\.\./x' must be of letters"),
        ("data: root", "scenes: {logs: {}}", r"mine\.yaml: logs: the study's folder has something of this name itself"),
        ("  theirs:", "  a/b:", r"arms\.a/b: 'a/b' must be of letters"),
        ("  cars:", "  /cars:", r"tasks\./cars: '/cars' must be of letters"),
        ("steps: 20", "steps: ['20', --out, /elsewhere]", r"steps: .* is no whole number"),
        ("steps: 20", "val_split: --out=/elsewhere", r"val_split: .* a word that begins with - would be a flag"),
        ("recipe: small, data: cars", "recipe: --out=/x, data: cars", r"recipe: '--out=/x' is no value of a flag"),
        ("data: birds", f"data: {'x' * 300}", r"data: .*\(302 characters\) is no path; each name in it"),
    ],
)  # fmt: skip
def test_nothing_is_written_elsewhere(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ValueError, match=message):
        parse(GOOD.replace(old, new))


def test_aliases_that_multiply_are_refused() -> None:
    levels = [f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]" for n in range(1, 10)]
    with pytest.raises(ValueError, match=r"mine\.yaml: .*its aliases stand for .* values"):
        parse("\n".join(["b0: &b0 [x, x, x, x, x, x, x, x, x]", *levels]))


def test_a_negative_number_is_a_value() -> None:
    assert parse(GOOD.replace("steps: 20", "workers: -1")).tasks[0].options == {"workers": -1}


def test_a_learning_rate_is_a_flag_where_none_is_searched() -> None:
    study = parse(GOOD.replace("hours: 0.5", "base_lr: 1e-3").replace("photos, steps: 10", "photos, base_lr: 2e-3"))
    assert study.tasks[1].options == {"base_lr": 1e-3}
    assert study.arms[2].pretrain is not None and study.arms[2].pretrain.options == {"base_lr": 2e-3}
    with pytest.raises(ValueError, match=r"tasks\.cars\.base_lr: train_seg has no such flag, nor has this section"):
        parse(GOOD.replace("steps: 20", "base_lr: 1e-3"))  # which is searched


def test_one_arm_is_no_comparison() -> None:
    text = GOOD.replace("  theirs: {init: w.pth, init_source: mae, trust_pickle: true}\n", "")
    with pytest.raises(ValueError, match="arms: 1 arm; a comparison needs two or more"):
        parse(text.replace("  random: random\n", "").replace("theirs", "random"))


def test_a_probe_has_no_rate_to_search() -> None:
    text = GOOD.replace("tool: train_seg, recipe: small", "tool: probe, recipe: vit")
    with pytest.raises(ValueError, match=r"tasks\.cars\.search\.base_lrs: probe takes no learning rate"):
        parse(text.replace("steps: 20, ", ""))


def test_no_file_and_no_mapping(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"x\.yaml: no such study file"):
        read_study(tmp_path / "x.yaml", TOOLS)
    with pytest.raises(ValueError, match="the file is None; it must be a mapping"):
        parse("")


names = st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,7}", fullmatch=True)
texts = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=12)
rates = st.lists(st.floats(1e-6, 10), min_size=1, max_size=3, unique=True)
shares = st.lists(st.floats(0.01, 1), min_size=1, max_size=2, unique=True)
positive = st.floats(0.001, 1000)
words = texts.filter(lambda text: not text.startswith("-"))
recipes = st.sampled_from(["tiny", "small"])
cls_flags = {
    "steps": st.integers(1, 99),
    "protocol": st.sampled_from(["finetune", "linear"]),
    "warmup": st.builds(lambda value, unit: f"{value!r}{unit}", st.floats(0, 99), st.sampled_from(["steps", "epochs"])),
    "clip_norm": st.none() | positive,
    "betas": st.tuples(st.floats(0, 1), st.floats(0, 1)).map(list),
    "flip": st.booleans(),
    "train_list": words,
}
mae_flags = {"steps": st.integers(1, 99), "batch_size": st.integers(1, 99), "mask_ratio": st.floats(0.1, 0.9)}
grids = st.fixed_dictionaries(
    {"base_lrs": rates, "seed": st.integers(1000, 2000)},
    optional={"hold_out": st.floats(0.01, 0.99), "data": texts, **cls_flags},
)
pretrainings = st.fixed_dictionaries(
    {"recipe": recipes, "data": texts}, optional={"hours": positive, "flops_per_image": positive, **mae_flags}
)
arms = st.one_of(
    st.just("random"),
    st.fixed_dictionaries({"init": texts}, optional={"init_source": st.just("mae"), "trust_pickle": st.booleans()}),
    st.fixed_dictionaries({"pretrain": pretrainings}),
)
tasks = st.fixed_dictionaries(
    {"tool": st.just("train_cls"), "recipe": recipes, "data": texts},
    optional={"label_fractions": shares, "search": grids, "hours": positive, **cls_flags},
)


@st.composite
def studies(draw: st.DrawFn) -> dict[str, object]:
    labels = draw(st.lists(names, min_size=2, max_size=3, unique=True))
    found: dict[str, object] = {
        "name": draw(names),
        "seeds": draw(st.lists(st.integers(0, 999), min_size=1, max_size=3, unique=True)),
        "arms": {label: draw(arms) for label in labels},
        "tasks": draw(st.dictionaries(names, tasks, min_size=1, max_size=2)),
        "compare": {"claim": labels[0], "against": labels[1]},
    }
    more = {
        "data": texts,
        "budget": st.fixed_dictionaries({"match": st.sampled_from(["samples", "flops", "none"])}),
        "tokenizers": st.dictionaries(names, pretrainings, min_size=1, max_size=1),
        "scenes": st.dictionaries(names, st.fixed_dictionaries({"seed": st.integers(0, 9)}), min_size=1, max_size=1),
        "cluster": st.fixed_dictionaries({}, optional={"partition": words, "gpus": st.integers(0, 8)}),
    }
    return found | {key: draw(values) for key, values in more.items() if draw(st.booleans())}


@settings(max_examples=60, deadline=None)
@given(studies())
def test_round_trip(values: dict[str, object]) -> None:
    study = parse(yaml.safe_dump(values, allow_unicode=True))
    text = study_text(study)
    assert parse(text) == study
    assert study_text(parse(text)) == text


@pytest.mark.parametrize("arms", ["", "arms: 3", "arms: {}", "arms: [a, b]", "arms: {a b: random}"])
def test_a_choice_among_arms_that_are_none_is_no_second_error(arms: str) -> None:
    text = f"name: mine\nseeds: [0]\n{arms}\ncompare: {{claim: x}}\n"
    with pytest.raises(ValueError, match="arms") as raised:
        parse_study(text + "tasks: {b: {tool: train_cls, recipe: small, data: d}}\n", "s.yaml", TOOLS)
    assert "one of ." not in str(raised.value), raised.value
    with pytest.raises(ValueError, match="arms") as raised:
        parse_study(text.replace("claim: x", ""), "s.yaml", TOOLS)
    assert "one of ." not in str(raised.value), raised.value
