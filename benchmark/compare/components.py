"""How much of a difference's variance comes from seeds, from test images and from both together.

The model of the difference d of two arms at seed s and image i is the crossed one,

    d = effect + seed_s + image_i + interaction_si,

so the mean over S seeds and N images has the variance seed / S + image / N + interaction / (S N). The spread of the
per-seed differences estimates seed + interaction / N. The other two come from a bootstrap over images that draws the
same images for both arms and all seeds: the variance of the resampled *mean* difference is image / N + interaction /
(S N), the mean variance of the resampled *per-seed* differences (image + interaction) / N.

Axis letters: S seeds that both arms have, R resamples of the images.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Components:
    """Variances in squared units of the metric."""

    seeds: int
    images: int | None
    """Test images; None where the images are taken as they are, and the two variances below are 0."""
    seed: float
    """May be estimated below 0, where the seeds spread by less than the interaction makes them."""
    image: float
    interaction: float

    @property
    def of_seeds(self) -> float:
        """Variance of the mean difference that further seeds would lower: the spread of the per-seed differences."""
        return (self.seed + (0.0 if self.images is None else self.interaction / self.images)) / self.seeds

    @property
    def of_images(self) -> float:
        """Variance of the mean difference that stays however many seeds there are."""
        return 0.0 if self.images is None else self.image / self.images

    def expected(self, seeds: int, images: int | None) -> tuple[float, float]:
        """Return both as they are to be expected with that many seeds and images."""
        seed = max(self.seed, 0.0)
        if images is None:
            return seed / seeds, 0.0
        return (seed + self.interaction / images) / seeds, self.image / images


def components(difference_S: np.ndarray, resampled_SR: np.ndarray | None, images: int | None) -> Components:
    """Return the components of two or more per-seed differences; without resamples the seeds' alone."""
    seeds = len(difference_S)
    spread = float(np.var(difference_S, ddof=1))
    if resampled_SR is None or images is None:
        return Components(seeds=seeds, images=None, seed=spread, image=0.0, interaction=0.0)
    unbiased = images / max(images - 1, 1)  # the bootstrap's variance has images, not images - 1, in the denominator
    of_mean = unbiased * float(np.var(resampled_SR.mean(axis=0), ddof=1))
    of_each = unbiased * float(np.var(resampled_SR, axis=1, ddof=1).mean())
    interaction = max(of_each - of_mean, 0.0) * seeds / (seeds - 1)
    return Components(
        seeds=seeds,
        images=images,
        # not cut off at 0: that would count the interaction twice, and the interval would cover up to 99 %
        seed=spread - interaction,
        image=max(of_mean - interaction / seeds, 0.0) * images,
        interaction=interaction * images,
    )
