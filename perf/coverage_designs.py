"""What pre-training seeds, margins, looks and ranks do to intervals and verdicts, on synthetic studies.

    python -m perf.coverage_designs
    python -m perf.coverage_designs --studies 200 --only looks

Every synthetic study is compared and judged as real ones are (`benchmark.compare.contrast`); its truth is known. Prints
the tables of docs/statistics.md; about a quarter of an hour on one core.

Axis letters: A arms, S pre-trainings or seeds, T transfers of each, N images, R resamples.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal, get_args

import numpy as np
import tyro
from scipy import special
from tabulate import tabulate

from benchmark.compare.contrast import ArmValues, Contrast, contrast, decide
from benchmark.compare.interval import ALPHA, quantile
from benchmark.compare.ranks import rank_intervals
from benchmark.compare.resample import multiplicities
from metrics.accuracy import TOP1
from perf.coverage import RESAMPLES, STUDIES, covered

Part = Literal["pretraining", "equivalence", "looks", "crossed_looks", "ranks"]
LOOKS = (3, 5, 8)
TASKS = 3  # of a synthetic study
NO = "inconclusive"


@dataclass(frozen=True, kw_only=True)
class Regime:
    """Where an arm's answers vary: standard deviations on the probit scale of a right answer, each of one arm alone."""

    name: str
    pretrain: float = 0.0
    transfer: float = 0.0
    """Of a transfer seed, the same at every pre-training."""
    cell: float = 0.0
    """Of one transfer of one pre-training."""
    group: float = 0.0
    """Of a group of images."""
    image: float = 0.2
    common_image: float = 0.7
    """Of an image, in both arms."""
    images: int = 150

    def level(self, share: float) -> float:
        """Return the level at which the expected share of right answers is `share`."""
        return float(special.ndtri(share)) * self.spread

    @property
    def spread(self) -> float:
        """Deviation of an answer around its arm's level; 1 is fresh noise."""
        parts = (self.pretrain, self.transfer, self.cell, self.group, self.image, self.common_image, 1.0)
        return float(np.sqrt(sum(part**2 for part in parts)))


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags."""

    studies: int = 2000
    """Synthetic studies per setting."""
    only: tuple[Part, ...] = get_args(Part)
    """Which tables."""


def study(
    regime: Regime,
    shares: tuple[float, ...],
    shape: tuple[int, int],
    times_RN: np.ndarray,
    rng: np.random.Generator,
    *,
    groups_N: np.ndarray | None = None,
    metric: str = "top1",
) -> np.ndarray:
    """Return a metric in percent, (A, S, T, R), on resamples of the images."""
    arms, (seeds, count) = len(shares), shape
    latent = np.array([regime.level(share) for share in shares]).reshape(arms, 1, 1, 1)
    latent = latent + regime.pretrain * rng.standard_normal((arms, seeds, 1, 1))
    latent = latent + regime.transfer * rng.standard_normal((arms, 1, count, 1))
    latent = latent + regime.cell * rng.standard_normal((arms, seeds, count, 1))
    latent = latent + regime.image * rng.standard_normal((arms, 1, 1, regime.images))
    latent = latent + regime.common_image * rng.standard_normal(regime.images)
    if groups_N is not None:
        latent = latent + regime.group * rng.standard_normal((arms, 1, 1, int(groups_N.max()) + 1))[..., groups_N]
    flat_ASN = latent.reshape(arms, seeds * count, regime.images)
    return STUDIES[metric](flat_ASN, times_RN, rng).reshape(arms, seeds, count, -1)


def drawn(units: int, groups_N: np.ndarray | None = None) -> np.ndarray:
    """Return multiplicities (1 + R, N) of images, or of groups of them; the first row is the data as it is."""
    times_RU = np.concatenate([np.ones((1, units), dtype=np.int64), *multiplicities(units, RESAMPLES)])
    return times_RU if groups_N is None else times_RU[:, groups_N]


def compared(
    values_ASTR: np.ndarray,
    units: int,
    *,
    crossed: bool = False,
    margin: float | None = None,
    looks: tuple[int, ...] = (),
) -> Contrast:
    """Return the contrast of a study; without `crossed` the T axis is one long."""
    arms = []
    for arm_STR in values_ASTR:
        cells = {
            (s, t) if crossed else s: arm_STR[s, t] for s in range(arm_STR.shape[0]) for t in range(arm_STR.shape[1])
        }
        arms.append(
            ArmValues(
                by_seed={cell: float(value_R[0]) for cell, value_R in cells.items()},
                resampled_R={cell: value_R[1:] for cell, value_R in cells.items()},
            )
        )
    item = contrast(
        "t", metric=TOP1, arms=("a", "b"), first=arms[0], second=arms[1], images=units, margin=margin, looks=looks
    )
    if item is None:
        raise AssertionError("the arms of a synthetic study share no seed")
    return item


def rate(found: list[bool]) -> str:
    """Return a percentage with the error of the simulation, 1.96 standard errors."""
    share = float(np.mean(found))
    return f"{100 * share:.1f} \N{PLUS-MINUS SIGN} {196 * np.sqrt(share * (1 - share) / len(found)):.1f}"


PRETRAINING = (
    Regime(name="pre-training dominates", pretrain=0.12, cell=0.04),
    Regime(name="transfers of a pre-training alike", pretrain=0.08, cell=0.08),
    Regime(name="transfer seeds shared", pretrain=0.08, transfer=0.05, cell=0.05),
    Regime(name="transfer seeds dominate", pretrain=0.02, transfer=0.12, cell=0.02),
    Regime(name="images dominate", pretrain=0.02, cell=0.02, image=0.8, images=100),
)
SHARES = (0.66, 0.6)


def pretraining_table(studies: int) -> str:
    """Return coverage of the true difference of methods, by what is crossed, tied, or pre-trained once."""
    shapes = {"tied 3": (3, 1), "tied 5": (5, 1), "3 x 2": (3, 2), "3 x 3": (3, 3), "5 x 2": (5, 2), "5 x 3": (5, 3)}
    rows = []
    for regime in PRETRAINING:
        times_RN, cells = drawn(regime.images), []
        true = 100 * (SHARES[0] - SHARES[1])
        for name, shape in shapes.items():
            rng = np.random.default_rng([len(rows), *shape])
            crossed = not name.startswith("tied")
            # a transfer seed of its own for each pre-training, or the same for all
            own = (
                regime if crossed else replace(regime, transfer=0.0, cell=float(np.hypot(regime.cell, regime.transfer)))
            )
            items = [
                compared(study(own, SHARES, shape, times_RN, rng), regime.images, crossed=crossed)
                for _ in range(studies)
            ]
            cells.append(rate([covered(item, true) for item in items]))
        rng = np.random.default_rng([len(rows), 99])
        once = (study(regime, SHARES, (1, 5), times_RN, rng).transpose(0, 2, 1, 3) for _ in range(studies))
        cells.append(rate([covered(compared(values, regime.images), true) for values in once]))
        rows.append([regime.name, *cells])
        print(rows[-1], flush=True)
    head = ["variance", *shapes, "one pre-training, 5 transfers"]
    return f"{tabulate(rows, head, tablefmt='pipe', disable_numparse=True)}\n\n{crossed_table()}"


def crossed_table(draws: int = 20_000) -> str:
    """Return least and most coverage of the 95 % interval of S x T crossed seeds over the true parts of the variance.

    With very many images. First over all parts, then over those where what all pre-trainings share at a transfer seed
    is a fifth of the variance at most.
    """
    rng = np.random.default_rng(0)
    parts = (0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1)
    rows = []
    for seeds, count in ((2, 2), (2, 5), (3, 3), (3, 5), (5, 5), (10, 10), (3, 2), (5, 2), (5, 3), (10, 3)):
        row_D, column_D, cell_D = (
            rng.chisquare(freedom, draws) / freedom for freedom in (seeds - 1, count - 1, (seeds - 1) * (count - 1))
        )
        held: dict[bool, list[float]] = {False: [], True: []}
        for first in parts:
            for shared in (part for part in parts if first + part <= 1):
                for cell in (first * part for part in (0, 0.5, 1)):
                    of_rows_D = first * row_D
                    of_columns_D = np.maximum((shared + cell) * column_D - cell * cell_D, 0.0)
                    total_D = of_rows_D + of_columns_D + max(1 - first - shared, 1e-9)
                    asked = (of_rows_D, seeds), (of_columns_D, count), (of_rows_D + of_columns_D, max(seeds, count))
                    reach_D = np.max([quantile(ALPHA, part_D / total_D, few, None) for part_D, few in asked], axis=0)
                    found = 100 * float(np.mean(2 * special.ndtr(reach_D * np.sqrt(total_D)) - 1))
                    held[False].append(found)
                    if shared <= 0.2:
                        held[True].append(found)
        rows.append([f"{seeds} x {count}", *(f"{min(found):.1f} to {max(found):.1f}" for found in held.values())])
    head = ["pre-trainings x transfers", "all parts", "shared by transfers: a fifth at most"]
    return tabulate(rows, head, tablefmt="pipe", disable_numparse=True)


SEEDS = (
    Regime(name="seeds dominate", pretrain=0.12, images=200),
    Regime(name="seeds and images alike", pretrain=0.06, image=0.5),
    Regime(name="images dominate", pretrain=0.01, image=0.8, images=100),
)


def family(
    regime: Regime, pairs: list[tuple[float, float]], seeds: int, times_RN: np.ndarray, rng: np.random.Generator
) -> list[np.ndarray]:
    """Return the values of a study of several tasks."""
    return [study(regime, pair, (seeds, 1), times_RN, rng) for pair in pairs]


def equivalence_table(studies: int) -> str:
    """Return how often equivalence is claimed where it is true and where it is not, and any verdict that is false."""
    rows = []
    for regime in SEEDS:
        times_RN = drawn(regime.images)
        for seeds in (2, 3, 5, 10):
            for margin in (10.0,):
                rng = np.random.default_rng([SEEDS.index(regime), seeds, int(margin)])
                level = (0.6, 0.6), (0.6, 0.6 - margin / 100)

                def judged(truths: str, seeds: int = seeds, margin: float = margin, regime: Regime = regime,
                           level: tuple[tuple[float, float], ...] = level, times_RN: np.ndarray = times_RN,
                           rng: np.random.Generator = rng) -> list[list[str]]:  # fmt: skip
                    """Return the verdicts of every study; `=` is a task of equal arms, `m` one at the margin."""
                    pairs = [level[0] if truth == "=" else level[1] for truth in truths]
                    return [
                        [str(item.verdict) + " within" * item.within_margin for item in decide([
                            compared(values, regime.images, margin=margin)
                            for values in family(regime, pairs, seeds, times_RN, rng)
                        ])]
                        for _ in range(studies)
                    ]  # fmt: skip

                alike, apart, mixed = judged("==="), judged("mmm"), judged("=mm")
                rows.append(
                    [
                        regime.name, seeds, f"{margin:g}",
                        f"{100 * np.mean([v.startswith('equivalent') for one in alike for v in one]):.0f}",
                        rate([any(v.startswith(("supported", "contradicted")) for v in one) for one in alike]),
                        rate([any("within" in v or v == "contradicted" for v in one) for one in apart]),
                        rate([
                            one[0].startswith(("supported", "contradicted"))
                            or any("within" in v or v == "contradicted" for v in one[1:])
                            for one in mixed
                        ]),
                    ]
                )  # fmt: skip
                print(rows[-1], flush=True)
    head = [
        "variance", "seeds", "margin", "found where true (a task)", "a difference claimed where none is",
        "equivalence claimed at the margin", "either, one task alike and two at the margin",
    ]  # fmt: skip
    return tabulate(rows, head, tablefmt="pipe", disable_numparse=True)


def looks_table(studies: int) -> str:
    """Return the false verdicts of studies that are looked at three times, with and without spending alpha."""
    rows = []
    for regime in SEEDS:
        times_RN = drawn(regime.images)
        for tasks in (1, TASKS):
            rng = np.random.default_rng([SEEDS.index(regime), tasks, 7])
            found: dict[str, list[bool]] = {"without": [], "spent": [], "last": []}
            for _ in range(studies):
                values = family(regime, [(0.6, 0.6)] * tasks, LOOKS[-1], times_RN, rng)
                for name, looks in (("without", ()), ("spent", LOOKS)):
                    each = [
                        decide([compared(one[:, :count], regime.images, looks=looks) for one in values])
                        for count in LOOKS
                    ]
                    found[name].append(any(item.verdict != NO for at in each for item in at))
                    if not looks:
                        found["last"].append(any(item.verdict != NO for item in each[-1]))
            rows.append([regime.name, tasks, *(rate(found[name]) for name in ("last", "without", "spent"))])
            print(rows[-1], flush=True)
    head = ["variance", "tasks", "one look at 8", "3, 5 and 8 seeds, not spent", "3, 5 and 8 seeds, spent"]
    return tabulate(rows, head, tablefmt="pipe", disable_numparse=True)


def crossed_looks_table(studies: int) -> str:
    """Return the false verdicts of crossed studies of one task that are read at 3, 5 and 8 pre-trainings."""
    rows = []
    for regime in PRETRAINING:
        times_RN = drawn(regime.images)
        rng = np.random.default_rng([PRETRAINING.index(regime), 13])
        found: dict[str, list[bool]] = {"without": [], "spent": []}
        for _ in range(studies):
            whole = study(regime, (0.6, 0.6), (LOOKS[-1], LOOKS[-1]), times_RN, rng)
            for name, looks in (("without", ()), ("spent", LOOKS)):
                at = [
                    decide([compared(whole[:, :count, :count], regime.images, crossed=True, looks=looks)])
                    for count in LOOKS
                ]
                found[name].append(any(item.verdict != NO for (item,) in at))
        rows.append([regime.name, *(rate(values) for values in found.values())])
        print(rows[-1], flush=True)
    head = ["variance", "3, 5 and 8 of each, not spent", "3, 5 and 8 of each, spent"]
    return tabulate(rows, head, tablefmt="pipe", disable_numparse=True)


ARMS = {
    "all alike": (0.6, 0.6, 0.6, 0.6),
    "one better": (0.7, 0.6, 0.6, 0.6),
    "two and two": (0.7, 0.7, 0.6, 0.6),
    "all apart": (0.75, 0.7, 0.65, 0.6),
}


def ranks_table(studies: int) -> str:
    """Return how often the rank intervals of four arms hold the true ranks of all, and how wide they are.

    Arms that are alike share ranks: each must lie in the interval of every one of them.
    """
    rows = []
    for regime in SEEDS:
        times_RN = drawn(regime.images)
        for seeds in (3, 5, 10):
            cells = []
            for name, shares in ARMS.items():
                rng = np.random.default_rng([SEEDS.index(regime), seeds, [*ARMS].index(name), 17])
                held, width = [], []
                for _ in range(studies):
                    values_ASTR = study(regime, shares, (seeds, 1), times_RN, rng)
                    pairs = {
                        (f"{a}", f"{b}"): compared(values_ASTR[[a, b]], regime.images)
                        for a, b in combinations(range(4), 2)
                    }
                    ranks = rank_intervals(pairs, [f"{arm}" for arm in range(4)])
                    inside = [
                        best <= 1 + sum(other > share for other in shares)
                        and worst >= sum(other >= share for other in shares)
                        for (best, worst), share in zip(ranks.values(), shares, strict=True)
                    ]
                    held.append(all(inside))
                    width += [worst - best + 1 for best, worst in ranks.values()]
                cells.append(f"{rate(held)} ({np.mean(width):.1f})")
            rows.append([regime.name, seeds, *cells])
            print(rows[-1], flush=True)
    head = ["variance", "seeds", *ARMS]
    return tabulate(rows, head, tablefmt="pipe", disable_numparse=True)


TABLES: dict[Part, Callable[[int], str]] = {
    "pretraining": pretraining_table,
    "equivalence": equivalence_table,
    "looks": looks_table,
    "crossed_looks": crossed_looks_table,
    "ranks": ranks_table,
}


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0."""
    args = tyro.cli(Args, args=argv, description=__doc__)
    for part in args.only:
        print(f"{part}\n\n{TABLES[part](args.studies)}\n", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
