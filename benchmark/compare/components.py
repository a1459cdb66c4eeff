"""How much of a difference's variance comes from seeds, from test images and from both together.

The model of the difference d of two arms at seed s and image i is the crossed one,

    d = effect + seed_s + image_i + interaction_si,

so the mean over S seeds and N images has the variance seed / S + image / N + interaction / (S N). The spread of the
per-seed differences estimates seed + interaction / N. The other two come from a bootstrap over images that draws the
same images for both arms and all seeds: the variance of the resampled *mean* difference is image / N + interaction /
(S N), the mean variance of the resampled *per-seed* differences (image + interaction) / N.

Where each of S pre-trainings is transferred with the same T seeds, d has transfer_t and its interactions too. The mean
of a pre-training over its transfers then takes the place of the per-seed difference, and what all pre-trainings share
at a transfer seed is found from the spread of the transfers' means, less what the cells vary by around both means (the
analysis of variance of two crossed random factors).

Axis letters: S seeds that both arms have (pre-trainings, where crossed), T transfer seeds of each, R resamples of the
images.
"""

from dataclasses import dataclass

import numpy as np

from benchmark.compare.interval import Spread


@dataclass(frozen=True, kw_only=True)
class Transfers:
    """Variances of the transfer seeds that every pre-training shares, in squared units of the metric."""

    count: int
    seed: float
    """Of a transfer seed over all pre-trainings; may be estimated below 0."""
    cell: float
    """Of one transfer of one pre-training around both means."""
    interaction: float
    """Of transfer seed and image."""
    cell_interaction: float
    """Of cell and image."""

    def of_mean(self, images: int | None) -> float:
        """Return the variance of the mean that further transfer seeds alone would lower."""
        return max(self.seed + (0.0 if images is None else self.interaction / images), 0.0) / self.count


@dataclass(frozen=True, kw_only=True)
class Components:
    """Variances in squared units of the metric."""

    seeds: int
    """Pre-trainings where `transfers` is there."""
    images: int | None
    """Test images, or groups of them, that were drawn; None where the images are taken as they are, and the variances
    of images below are 0."""
    seed: float
    """May be estimated below 0, where the seeds spread by less than the interaction makes them."""
    image: float
    interaction: float
    """Of seed and image. Where crossed, this and `seed` are of a pre-training's mean over its transfers."""
    transfers: Transfers | None = None
    """Only where every pre-training was transferred with the same seeds, two or more."""

    @property
    def of_seeds(self) -> float:
        """Variance of the mean difference that further seeds would lower: the spread of the per-seed differences."""
        return (self.seed + (0.0 if self.images is None else self.interaction / self.images)) / self.seeds

    @property
    def of_transfers(self) -> float:
        """Variance of the mean difference that further transfer seeds of every pre-training would lower."""
        return 0.0 if self.transfers is None else self.transfers.of_mean(self.images)

    @property
    def of_images(self) -> float:
        """Variance of the mean difference that stays however many seeds there are."""
        return 0.0 if self.images is None else self.image / self.images

    @property
    def spread(self) -> Spread:
        """What the interval is made from."""
        more = () if self.transfers is None else ((self.of_transfers, self.transfers.count),)
        return Spread(factors=((self.of_seeds, self.seeds), *more), of_images=self.of_images, images=self.images)

    def expected(self, seeds: int, images: int | None, transfers: int | None = None) -> Spread:
        """Return what is to be expected with that many seeds, images and transfers of each pre-training."""
        given = self.transfers
        seed, interaction = max(self.seed, 0.0), self.interaction
        factors: tuple[tuple[float, int], ...] = ()
        if given is not None and transfers is not None:
            # a pre-training's mean over its transfers holds a share of what its cells vary by
            seed = max(self.seed + given.cell / transfers - given.cell / given.count, 0.0)
            interaction += given.cell_interaction * (1 / transfers - 1 / given.count)
            shared = max(given.seed, 0.0) + (0.0 if images is None else given.interaction / images)
            factors = ((shared / transfers, transfers),)
        of_seeds = (seed + (0.0 if images is None else max(interaction, 0.0) / images)) / seeds
        of_images = 0.0 if images is None else self.image / images
        return Spread(factors=((of_seeds, seeds), *factors), of_images=of_images, images=images)


def components(difference_S: np.ndarray, resampled_SR: np.ndarray | None, images: int | None) -> Components:
    """Return the components of two or more per-seed differences; without resamples the seeds' alone."""
    seeds = len(difference_S)
    spread = float(np.var(difference_S, ddof=1))
    if resampled_SR is None or images is None:
        return Components(seeds=seeds, images=None, seed=spread, image=0.0, interaction=0.0)
    of_mean = _over_images(resampled_SR.mean(axis=0), images)
    of_each = _over_images(resampled_SR, images)
    interaction = max(of_each - of_mean, 0.0) * seeds / (seeds - 1)
    return Components(
        seeds=seeds,
        images=images,
        # not cut off at 0: that would count the interaction twice, and the interval would cover up to 99 %
        seed=spread - interaction,
        image=max(of_mean - interaction / seeds, 0.0) * images,
        interaction=interaction * images,
    )


def crossed_components(difference_ST: np.ndarray, resampled_STR: np.ndarray | None, images: int | None) -> Components:
    """Return the components of the differences of S pre-trainings with T transfers each, two or more of both."""
    seeds, count = difference_ST.shape
    row_S, column_T = difference_ST.mean(axis=1), difference_ST.mean(axis=0)
    rest_ST = difference_ST - row_S[:, None] - column_T + difference_ST.mean()
    cell = float((rest_ST**2).sum()) / ((seeds - 1) * (count - 1))
    seed = float(np.var(column_T, ddof=1)) - cell / seeds
    if resampled_STR is None or images is None:
        alone = components(row_S, None, None)
        parts = Transfers(count=count, seed=seed, cell=cell, interaction=0.0, cell_interaction=0.0)
        return _with(alone, parts, image=0.0)
    of_rows = components(row_S, resampled_STR.mean(axis=1), images)
    of_mean = _over_images(resampled_STR.mean(axis=(0, 1)), images)
    row, column = (_over_images(resampled_STR.mean(axis=axis), images) for axis in (1, 0))
    each = _over_images(resampled_STR, images)
    of_cell = max(each - row - column + of_mean, 0.0) * seeds * count / ((seeds - 1) * (count - 1))
    of_transfer = max((column - of_mean) * count / (count - 1) - of_cell / seeds, 0.0)
    parts = Transfers(
        count=count,
        # as with the seeds, not cut off: `of_mean` of the transfers holds their interaction once
        seed=seed - of_transfer,
        cell=cell - of_cell,
        interaction=of_transfer * images,
        cell_interaction=of_cell * images,
    )
    return _with(of_rows, parts, image=max(of_rows.image - of_transfer * images / count, 0.0))


def _with(rows: Components, transfers: Transfers, *, image: float) -> Components:
    return Components(
        seeds=rows.seeds, images=rows.images, seed=rows.seed, image=image, interaction=rows.interaction,
        transfers=transfers,
    )  # fmt: skip


def _over_images(resampled: np.ndarray, images: int) -> float:
    """Return the mean variance over the resamples, the last axis."""
    unbiased = images / max(images - 1, 1)  # the bootstrap's variance has images, not images - 1, in the denominator
    return unbiased * float(np.var(resampled, axis=-1, ddof=1).mean())
