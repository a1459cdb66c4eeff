"""How often the intervals hold the truth and how often a verdict is false, on synthetic studies whose truth is known.

    python perf/coverage.py
    python perf/coverage.py --studies 100

Every synthetic study is resampled and compared as real ones are (`benchmark.compare.resample.multiplicities`,
`benchmark.compare.contrast`). Prints the tables of docs/statistics.md; about five minutes on one core.

Axis letters: S seeds, N images, R resamples, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tyro
from rich.console import Console
from scipy import special, stats
from tabulate import tabulate

from benchmark.compare.contrast import ArmValues, Contrast, contrast, decide
from benchmark.compare.interval import ALPHA, quantile
from benchmark.compare.resample import multiplicities
from metrics.accuracy import TOP1
from metrics.miou import Areas, resampled_scores

SEEDS = (2, 3, 5, 10)
RESAMPLES = 200  # a fifth of what tables use: more noise, so no easier
TASKS = ("top1", "miou", "ap")


@dataclass(frozen=True, kw_only=True)
class Regime:
    """Where the difference of two arms varies: standard deviations on the probit scale of a right answer."""

    name: str
    images: int
    seed: float
    """Of one arm's seed."""
    common_seed: float
    """Of a seed, in both arms: what pairing by seed removes."""
    image: float
    """Of an arm on an image, at every seed."""
    common_image: float
    """Of an image, in both arms: what pairing by image removes."""

    def spread(self) -> float:
        """Return the deviation of an answer around its arm's level, seeds left out; 1 is fresh noise."""
        return float(np.sqrt(1 + self.image**2 + self.common_image**2))


REGIMES = (
    Regime(name="seeds dominate", images=200, seed=0.15, common_seed=0.1, image=0.2, common_image=1.0),
    Regime(name="seeds and images alike", images=150, seed=0.06, common_seed=0.1, image=0.8, common_image=1.0),
    Regime(name="images dominate", images=100, seed=0.01, common_seed=0.05, image=1.0, common_image=0.5),
)


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags."""

    studies: int = 2000
    """Synthetic studies per setting; half as many for AP, which is slower."""


def latent(regime: Regime, levels: tuple[float, float], seeds: int, rng: np.random.Generator) -> np.ndarray:
    """Return the level of each arm's answer on each image at each seed, (2, S, N), noise left out."""
    seed_2S = regime.seed * rng.standard_normal((2, seeds)) + regime.common_seed * rng.standard_normal(seeds)
    image_2N = regime.image * rng.standard_normal((2, regime.images))
    image_2N += regime.common_image * rng.standard_normal(regime.images)
    return np.array(levels)[:, None, None] + seed_2S[:, :, None] + image_2N[:, None, :]


def top1_study(latent_2SN: np.ndarray, times_RN: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return top-1 in percent, (2, S, R), of answers that are right or wrong."""
    hit_2SN = latent_2SN + rng.standard_normal(latent_2SN.shape) > 0
    return 100 * (hit_2SN.astype(np.float64) @ times_RN.T) / times_RN.shape[1]


def miou_study(latent_2SN: np.ndarray, times_RN: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return mIoU in percent, (2, S, R): of each class a share is right, the rest is taken for the next class."""
    area_NC = 1000 * rng.lognormal(0, 0.7, (latent_2SN.shape[2], len(AREAS_C))) * AREAS_C
    share = special.ndtr(latent_2SN[..., None] + rng.standard_normal((*latent_2SN.shape, len(AREAS_C))))
    hit = area_NC * share
    predicted = hit + np.roll(area_NC - hit, 1, axis=-1)
    return np.array(
        [
            [resampled_scores(Areas(*parts_NC), times_RN)["miou"] for parts_NC in zip(*arm, strict=True)]
            for arm in zip(hit, np.broadcast_to(area_NC, hit.shape), predicted, strict=True)
        ]
    )


def ap_study(latent_2SN: np.ndarray, times_RN: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return AP in percent, (2, S, R), at one threshold and not interpolated, of a ranking over all images.

    Every image has two objects, each found or not with a score that knows a little of it, and one false alarm.
    """
    quality = latent_2SN[..., None] + rng.standard_normal((*latent_2SN.shape, 2))
    alarm = rng.standard_normal((*latent_2SN.shape, 1)) - 0.5
    score = np.concatenate([0.7 * quality + rng.standard_normal(quality.shape), alarm], axis=3)
    hit = np.concatenate([quality > 0, np.zeros_like(alarm, dtype=bool)], axis=3)
    seeds, images = latent_2SN.shape[1:]
    image_D = np.repeat(np.arange(images), 3)
    times_NR = np.ascontiguousarray(times_RN.T, dtype=np.int32)
    ap_2SR = np.empty((2, seeds, len(times_RN)))
    for arm, seed in np.ndindex(2, seeds):
        order_D = np.argsort(-score[arm, seed].ravel())
        hit_D = hit[arm, seed].ravel()[order_D]
        times_DR = times_NR[image_D[order_D]]
        seen_MR = np.cumsum(times_DR, axis=0, dtype=np.int32)[hit_D]
        hits_MR = times_DR[hit_D]
        precision_MR = np.cumsum(hits_MR, axis=0, dtype=np.int32) / np.maximum(seen_MR, 1)
        ap_2SR[arm, seed] = 100 * (hits_MR * precision_MR).sum(axis=0) / (2 * images)
    return ap_2SR


AREAS_C = np.array([4.0, 2.0, 1.0, 0.5])  # of the classes, relative
STUDIES: dict[str, Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]] = {
    "top1": top1_study,
    "miou": miou_study,
    "ap": ap_study,
}
# arm and reference on the probit scale; AP has no closed form, so its truth is known where the arms are equal alone
EFFECTS = {"top1": (0.8, 0.5), "miou": (1.2, 0.9), "ap": (0.5, 0.5)}


def truth(task: str, regime: Regime, levels: tuple[float, float]) -> float:
    """Return the expected difference over seeds on infinitely many images, in percent points."""
    if levels[0] == levels[1]:
        return 0.0
    node_H, weight_H = np.polynomial.hermite_e.hermegauss(40)
    seed_H = node_H * np.hypot(regime.seed, regime.common_seed)
    values = []
    for level in levels:
        right_H = special.ndtr((level + seed_H) / regime.spread())
        if task == "miou":
            # a share is a probability seen through its own noise: one more unit of variance
            right_H = special.ndtr((level + seed_H) / np.hypot(regime.spread(), 1))
            before_C = np.roll(AREAS_C, 1)
            right_H = (AREAS_C * right_H[:, None] / (AREAS_C + before_C * (1 - right_H[:, None]))).mean(axis=1)
        values.append(float(weight_H @ right_H / weight_H.sum()))
    return 100 * (values[0] - values[1])


def simulate(task: str, regime: Regime, levels: tuple[float, float], seeds: int, studies: int) -> list[Contrast]:
    """Return the contrast of every synthetic study of a setting."""
    rng = np.random.default_rng([TASKS.index(task), seeds, REGIMES.index(regime), levels[0] == levels[1]])
    times_RN = np.concatenate(list(multiplicities(regime.images, RESAMPLES)))
    times_RN = np.concatenate([np.ones((1, regime.images), dtype=np.int64), times_RN])  # the first is the data as it is
    results = []
    for _ in range(studies):
        values_2SR = STUDIES[task](latent(regime, levels, seeds, rng), times_RN, rng)
        arms = [
            ArmValues(by_seed=dict(enumerate(arm_SR[:, 0].tolist())), resampled_R=dict(enumerate(arm_SR[:, 1:])))
            for arm_SR in values_2SR
        ]
        item = contrast(task, metric=TOP1, arms=("a", "b"), first=arms[0], second=arms[1], images=regime.images)
        if item is None:
            raise AssertionError(f"{task}: the arms of a synthetic study share no seed")
        results.append(item)
    return results


def covered(item: Contrast, true: float) -> bool:
    """Return whether the interval holds the truth; none at all (no spread was seen) rules nothing out."""
    return item.interval is None or item.interval[0] <= true <= item.interval[1]


def false_verdicts(nulls: dict[str, list[Contrast]]) -> float:
    """Return the percentage of studies of all tasks in which one or more verdicts are not `inconclusive`."""
    families = list(zip(*nulls.values(), strict=False))  # as many as the task with the fewest has
    return 100 * float(np.mean([any(item.verdict != "inconclusive" for item in decide(family)) for family in families]))


def coverage_table(studies: int, console: Console) -> str:
    """Return the table of measured coverage and false verdicts, one row per regime and number of seeds."""
    rows = []
    for regime in REGIMES:
        for seeds in SEEDS:
            cells, nulls = [], {}
            for task in TASKS:
                count = studies // 2 if task == "ap" else studies
                nulls[task] = simulate(task, regime, (EFFECTS[task][1],) * 2, seeds, count)
                measured = nulls[task]
                if EFFECTS[task][0] != EFFECTS[task][1]:
                    measured = simulate(task, regime, EFFECTS[task], seeds, count)
                true = truth(task, regime, EFFECTS[task])
                held = [covered(item, true) for item in measured]
                parts = [item.components for item in measured if item.components and item.interval]
                share = np.mean([part.of_seeds / (part.of_seeds + part.of_images) for part in parts])
                error = 100 * 1.96 * np.sqrt(np.mean(held) * (1 - np.mean(held)) / len(held))
                cells.append(f"{100 * np.mean(held):.1f} \N{PLUS-MINUS SIGN} {error:.1f} ({100 * share:.0f} %)")
            rows.append([regime.name, regime.images, seeds, *cells, f"{false_verdicts(nulls):.1f}"])
            console.print(f"{len(rows)} of {len(REGIMES) * len(SEEDS)} settings done: {rows[-1]}", highlight=False)
    head = ["variance", "images", "seeds", *(f"{task}: coverage (seeds' share)" for task in TASKS), "false verdicts"]
    return tabulate(rows, head, tablefmt="pipe", disable_numparse=True)


def exact_table() -> str:
    """Return least and most coverage over every true share of the seeds, integrated over the spread's distribution."""
    point_Q = (np.arange(50_000) + 0.5) / 50_000
    rows = []
    for seeds in (2, 3, 4, 5, 7, 10, 30):
        spread_Q = stats.chi2.ppf(point_Q, seeds - 1) / (seeds - 1)
        cells = []
        for alpha in (ALPHA, ALPHA / 2, ALPHA / 3, 2 * ALPHA, 2 * ALPHA / 3):
            held = []
            for share in (0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 1):
                seed_Q, image = share * spread_Q, 1 - share
                reach_Q = quantile(alpha, seed_Q / (seed_Q + image), seeds, None) * np.sqrt(seed_Q + image)
                held.append(100 * float(np.mean(2 * special.ndtr(reach_Q) - 1)))
            cells.append(f"{min(held):.1f} to {max(held):.1f}")
        rows.append([seeds, *cells])
    head = [
        "seeds", "95 %", "97.5 % (Holm, 2 tasks)", "98.3 % (Holm, 3 tasks)", "90 % (equivalence)",
        "96.7 % (equivalence, 3 tasks)",
    ]  # fmt: skip
    return tabulate(rows, head, tablefmt="pipe", disable_numparse=True)


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0."""
    args = tyro.cli(Args, args=argv, description=__doc__)
    print(f"{exact_table()}\n\n{coverage_table(args.studies, Console(stderr=True, width=200))}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
