"""Components of variance, contrasts, verdicts and what would settle them."""

from dataclasses import replace

import numpy as np
import pytest

from benchmark.compare.components import Components, components
from benchmark.compare.contrast import ArmValues, Contrast, contrast, judge
from benchmark.compare.needed import needed
from metrics.accuracy import TOP1


def arm(values: dict[int, float], resampled_R: dict[int, np.ndarray] | None = None) -> ArmValues:
    return ArmValues(by_seed=values, resampled_R=resampled_R or {})


def of(first: dict[int, float], second: dict[int, float], task: str = "classification") -> Contrast | None:
    return contrast(task, metric=TOP1, arms=("mae", "supervised"), first=arm(first), second=arm(second), images=None)


def test_components_by_hand() -> None:
    # resampled differences of two seeds: mean 1, -1, 1, -1 (variance 4/3), each 2, -2, 2, -2 and 0 (16/3 and 0)
    resampled_SR = np.array([[2.0, -2.0, 2.0, -2.0], [0.0, 0.0, 0.0, 0.0]])
    parts = components(np.array([1.0, 5.0]), resampled_SR, 5)  # N / (N - 1) = 5/4
    # of the mean 5/4 * 4/3 = 5/3; of each 5/4 * 8/3 = 10/3; interaction / N = (10/3 - 5/3) * 2 = 10/3
    assert parts.interaction == pytest.approx(5 * 10 / 3)
    assert parts.image == pytest.approx(0.0)  # 5/3 - (10/3) / 2
    assert parts.seed == pytest.approx(8 - 10 / 3)  # the spread over seeds is 8
    assert parts.of_seeds == pytest.approx(8 / 2) and parts.of_images == pytest.approx(0.0)


def test_components_of_a_crossed_design_are_found() -> None:
    rng = np.random.default_rng(0)
    seeds, images = 400, 400
    seed_S, image_N = 0.5 * rng.standard_normal(seeds), 2.0 * rng.standard_normal(images)
    score_SN = seed_S[:, None] + image_N + 3.0 * rng.standard_normal((seeds, images))
    times_RN = rng.multinomial(images, np.full(images, 1 / images), size=800)
    parts = components(score_SN.mean(axis=1), score_SN @ times_RN.T / images, images)
    # relative error of a variance from 400 values is about 7 %, from 800 resamples 5 %; three of both
    assert parts.seed == pytest.approx(0.25, rel=0.25)
    assert parts.image == pytest.approx(4.0, rel=0.25)
    assert parts.interaction == pytest.approx(9.0, rel=0.25)


def test_difference_is_paired_by_seed() -> None:
    # the means differ by 1.5, the common seeds 1 and 2 by 3 and 1
    item = of({0: 1.0, 1: 5.0, 2: 6.0}, {1: 2.0, 2: 5.0, 7: 0.5})
    assert item is not None
    assert (item.per_seed, item.n, item.mean, item.unpaired) == ({1: 3.0, 2: 1.0}, 2, 2.0, (0, 7))
    assert item.interval == pytest.approx((2 - 12.706205, 2 + 12.706205), abs=1e-6)
    assert item.images is None and item.permutation is not None and item.permutation.smallest == 0.5


def test_one_common_seed_has_no_interval_and_none_no_difference() -> None:
    item = of({0: 2.0}, {0: 1.0})
    assert item is not None and item.interval is None and item.p is None and item.mean == 1.0
    (judged,) = judge([item])
    assert judged.verdict == "inconclusive" and judged.needed is None
    assert of({0: 2.0}, {1: 1.0}) is None


def test_images_widen_the_interval_and_pairing_narrows_it() -> None:
    rng = np.random.default_rng(1)
    shared_R = rng.standard_normal(500)
    values = {0: 1.0, 1: 1.2, 2: 0.9}, {0: 0.0, 1: 0.1, 2: 0.0}
    widths = {}
    for name, noise in (("paired", 0.0), ("unpaired", 1.0)):
        runs = [{s: v + shared_R + noise * rng.standard_normal(500) for s, v in one.items()} for one in values]
        item = contrast(
            "t", metric=TOP1, arms=("a", "b"), first=arm(values[0], runs[0]), second=arm(values[1], runs[1]), images=50
        )
        assert item is not None and item.interval is not None and item.images == 50
        widths[name] = item.interval[1] - item.interval[0]
    alone = of(*values)
    assert alone is not None and alone.interval is not None
    assert widths["paired"] == pytest.approx(alone.interval[1] - alone.interval[0])
    assert widths["unpaired"] > 1.2 * widths["paired"]


def test_verdicts_after_holm() -> None:
    item = of({0: 1.0, 1: 1.1, 2: 0.9}, {0: 0.0, 1: 0.0, 2: 0.0})
    assert item is not None
    family = [
        replace(item, task=str(i), p=p, mean=mean) for i, (p, mean) in enumerate(((0.04, 1), (0.01, -1), (0.03, 1)))
    ]
    judged = judge(family)
    assert [x.verdict for x in judged] == ["inconclusive", "contradicted", "inconclusive"]
    assert [x.adjusted_p for x in judged] == pytest.approx([0.06, 0.03, 0.06])
    assert [x.needed is None for x in judged] == [False, True, False]
    assert judge([replace(item, p=0.05)])[0].verdict == "supported"


def test_needed_by_hand() -> None:
    # only images vary: (1.96 + 0.84)^2 * 100 / 1^2 = 785 images, in steps of a tenth from 100
    images = needed(1.0, Components(seeds=3, images=100, seed=0.0, image=100.0, interaction=0.0), 1)
    assert images.seeds is None and images.both is None
    assert images.images is not None and 785 <= images.images <= 785 * 1.1
    # only seeds vary, 1 unit: n is the least with (t + 0.8416)^2 / n <= 1; at 10 seeds (2.262 + .842)^2 = 9.6, at 9 9.9
    seeds = needed(1.0, Components(seeds=3, images=None, seed=1.0, image=0.0, interaction=0.0), 1)
    assert (seeds.seeds, seeds.images) == (10, None)
    assert needed(0.0, Components(seeds=3, images=9, seed=1.0, image=1.0, interaction=0.0), 1).both is None
    both = needed(0.5, Components(seeds=2, images=50, seed=4.0, image=100.0, interaction=0.0), 3)
    assert both.seeds is None and both.images is None and both.both is not None
