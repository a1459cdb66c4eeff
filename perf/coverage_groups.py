"""What groups of alike test images do to intervals, on synthetic studies; and whether frames of a video are told.

    python -m perf.coverage_groups
    python -m perf.coverage_groups --studies 200 --only unequal

As `perf/coverage_designs.py`, whose studies these are. Prints the tables of docs/statistics.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import tyro
from tabulate import tabulate

from benchmark.compare.frames import alike_neighbours
from metrics.accuracy import resampler
from perf.coverage import covered
from perf.coverage_designs import Regime, compared, drawn, rate, study

Part = Literal["groups", "unequal", "frames"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags."""

    studies: int = 2000
    """Synthetic studies per setting."""
    only: tuple[Part, ...] = get_args(Part)
    """Which tables."""


def groups_table(studies: int) -> str:
    """Return coverage and false verdicts where images of a group are alike, with groups drawn and with images drawn."""
    rows = []
    for groups in (3, 5, 10, 20, 40):
        groups_N = np.repeat(np.arange(groups), 10)
        regime = Regime(name="groups", pretrain=0.05, group=0.3, image=0.3, images=len(groups_N))
        whole_RN, single_RN = drawn(groups, groups_N), drawn(regime.images)
        for seeds in (3, 5):
            cells = []
            for metric in ("top1", "miou", "ap"):
                count = studies // 2 if metric != "top1" else studies
                for times_RN, units in ((whole_RN, groups), (single_RN, regime.images)):
                    rng = np.random.default_rng([groups, seeds, len(metric)])
                    shares = (0.6, 0.6)
                    values = (
                        study(regime, shares, (seeds, 1), times_RN, rng, groups_N=groups_N, metric=metric)
                        for _ in range(count)
                    )
                    cells.append(rate([covered(compared(one, units), 0.0) for one in values]))
            rows.append([groups, regime.images, seeds, *cells])
            print(rows[-1], flush=True)
    names = [f"{metric}, {what} drawn" for metric in ("top1", "miou", "ap") for what in ("groups", "images")]
    return tabulate(rows, ["groups", "images", "seeds", *names], tablefmt="pipe", disable_numparse=True)


def unequal_table(studies: int) -> str:
    """Return coverage where groups differ in size, the k-th being 1 / k of the first, drawn whole and as images."""
    rows = []
    for groups in (5, 10, 20, 40):
        sizes = np.maximum(np.round(10 * groups / np.arange(1, groups + 1) / np.sum(1 / np.arange(1, groups + 1))), 1)
        groups_N = np.repeat(np.arange(groups), sizes.astype(int))
        regime = Regime(name="groups", pretrain=0.05, group=0.3, image=0.3, images=len(groups_N))
        for seeds in (3, 5):
            cells = []
            for times_RN, units in ((drawn(groups, groups_N), groups), (drawn(regime.images), regime.images)):
                rng = np.random.default_rng([groups, seeds, 11])
                # of the images that are drawn, as a resampled top-1 is; their number differs
                per_R = times_RN.sum(axis=1) / times_RN.shape[1]
                values = (
                    study(regime, (0.6, 0.6), (seeds, 1), times_RN, rng, groups_N=groups_N) / per_R
                    for _ in range(studies)
                )
                cells.append(rate([covered(compared(one, units), 0.0) for one in values]))
            rows.append([groups, regime.images, int(sizes[0]), seeds, *cells])
            print(rows[-1], flush=True)
    head = ["groups", "images", "in the largest", "seeds", "groups drawn", "images drawn"]
    return tabulate(rows, head, tablefmt="pipe", disable_numparse=True)


def frames_table(studies: int) -> str:
    """Return how often images with running numbers are taken for frames: single images, and scenes of five."""
    rows = []
    for images in (60, 100, 400):
        names, found = [f"v_{number:05d}.png" for number in range(images)], {0.0: 0, 1.0: 0, 2.0: 0}
        rng = np.random.default_rng(images)
        for _ in range(studies):
            for scene in found:
                level_N = 0.3 + scene * np.repeat(rng.standard_normal(images // 5), 5)
                hit_N = level_N + rng.standard_normal(images) > 0
                lines = [{"label": 1, "top5": [int(hit), 0]} for hit in hit_N]
                found[scene] += alike_neighbours(names, resampler(lines), "top1") is not None
        rows.append([images, *(f"{100 * count / studies:.1f}" for count in found.values())])
        print(rows[-1], flush=True)
    head = ["images", "warned, no scenes", "warned, scenes as strong as noise", "warned, scenes twice as strong"]
    return tabulate(rows, head, tablefmt="pipe", disable_numparse=True)


TABLES: dict[Part, Callable[[int], str]] = {
    "groups": groups_table,
    "unequal": unequal_table,
    "frames": frames_table,
}


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0."""
    args = tyro.cli(Args, args=argv, description=__doc__)
    for part in args.only:
        print(f"{part}\n\n{TABLES[part](args.studies)}\n", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
