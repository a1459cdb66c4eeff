"""Read-outs of patches: retrieval from a memory of training patches, and logistic regression.

Retrieval is Hummingbird's (Balazevic et al. 2023, arXiv 2306.01667): a patch takes the mean of its nearest neighbours'
shares of classes, weighted by the softmax of cosine similarity / temperature. Logistic regression is scikit-learn's
multinomial one, 1/2 |W|^2 + C * sum of cross-entropies with a free intercept, by L-BFGS.

Axis letters: M patches of the memory, Q patches that ask, k neighbours, D width, C classes, K classes that occur.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from metrics.miou import scores
from segmentation.probe.config import Search
from segmentation.probe.search import QUERIES_AT_ONCE, nearest

CS = tuple(10.0**power for power in range(-6, 2))
HELD_OUT = 0.1
TOLERANCE = 1e-6  # of the largest entry of the gradient of the mean loss


@dataclass(frozen=True)
class PatchScores:
    """Scores of some classes for each patch; the others have none and are predicted nowhere."""

    score_QK: Tensor
    class_K: Tensor
    """Numbers of the classes, ascending."""


def retrieve(
    memory: Iterable[Tensor],
    share_MC: Tensor,
    query_QD: Tensor,
    *,
    neighbours: Sequence[int],
    temperature: float,
    search: Search = "exact",
) -> dict[int, Tensor]:
    """Return by number of neighbours the shares of classes of each patch, (Q, C).

    `memory` gives rows of length 1 in pieces. A number above M takes all M.
    """
    best_Qk, place_Qk = nearest(memory, query_QD, max(neighbours), search=search)
    found: dict[int, list[Tensor]] = {k: [] for k in neighbours}
    for best_Bk, place_Bk in zip(best_Qk.split(QUERIES_AT_ONCE), place_Qk.split(QUERIES_AT_ONCE), strict=True):
        share_BkC = share_MC[place_Bk].float()
        for k in neighbours:
            weight_Bk = (best_Bk[:, :k] / temperature).softmax(dim=1)
            found[k].append((weight_Bk[:, None] @ share_BkC[:, :k])[:, 0])
    return {k: torch.cat(parts) for k, parts in found.items()}


def occurring(share_QC: Tensor) -> PatchScores:
    """Return the shares without the classes that no patch has."""
    class_K = share_QC.any(dim=0).nonzero()[:, 0]
    return PatchScores(share_QC[:, class_K], class_K)


@dataclass(frozen=True, kw_only=True)
class Regression:
    """A linear classifier of patches whose C was chosen on held-out training images."""

    weight_DK: Tensor
    bias_K: Tensor
    class_K: Tensor
    held_out_miou: tuple[float, ...]
    """Percent, by C (CS): a patch's prediction counts for all of its pixels."""
    chosen: int

    def logits(self, feature_QD: Tensor) -> PatchScores:
        """Return the logits of each patch."""
        return PatchScores(feature_QD @ self.weight_DK + self.bias_K, self.class_K)


def regression(
    feature_MD: Tensor, share_MC: Tensor, labelled_M: np.ndarray, image_M: np.ndarray, *, iterations: int, seed: int
) -> Regression:
    """Return the classifier of the most frequent class of each patch, trained on all but the held-out images.

    `labelled_M` counts the labelled pixels of a patch. A tenth of the images (one or more) is held out. Raises
    ValueError for patches of one image, since C cannot be chosen then.
    """
    images = np.unique(image_M)
    if len(images) < 2:
        raise ValueError(
            f"the patches of the memory are of {len(images)} training image: C cannot be chosen on held-out ones. Give "
            "more images, or a larger --memory."
        )
    held_images = np.random.default_rng([seed, 1]).permutation(images)[: max(1, round(HELD_OUT * len(images)))]
    held_M = torch.from_numpy(np.isin(image_M, held_images)).to(feature_MD.device)
    count_HC = np.rint(share_MC[held_M].double().cpu().numpy() * labelled_M[held_M.cpu().numpy()][:, None])
    class_K, target_M = share_MC[~held_M].float().argmax(dim=1).unique(return_inverse=True)
    mious: list[float] = []
    fits: list[tuple[Tensor, Tensor]] = []
    for weight_DK, bias_K in logistic_fits(
        feature_MD[~held_M], target_M, classes=len(class_K), cs=CS, iterations=iterations
    ):
        predicted_H = class_K[(feature_MD[held_M] @ weight_DK + bias_K).argmax(dim=1)].cpu().numpy()
        total_CC = np.zeros((count_HC.shape[1],) * 2, dtype=np.int64)
        np.add.at(total_CC.T, predicted_H, count_HC.astype(np.int64))
        mious.append(scores(total_CC)["miou"])
        fits.append((weight_DK, bias_K))
    chosen = mious.index(max(mious))
    return Regression(
        weight_DK=fits[chosen][0],
        bias_K=fits[chosen][1],
        class_K=class_K,
        held_out_miou=tuple(mious),
        chosen=chosen,
    )


def logistic_fits(
    feature_MD: Tensor, target_M: Tensor, *, classes: int, cs: Sequence[float], iterations: int
) -> list[tuple[Tensor, Tensor]]:
    """Return weights (D, K) and intercepts (K) for every C, in ascending order of C, each begun at the one before."""
    weight_DK = feature_MD.new_zeros(feature_MD.shape[1], classes).requires_grad_()
    bias_K = feature_MD.new_zeros(classes).requires_grad_()
    found = []
    for c in sorted(cs):
        penalty = 1 / (2 * c * len(feature_MD))
        solver = torch.optim.LBFGS(
            [weight_DK, bias_K],
            max_iter=iterations,
            max_eval=2 * iterations,
            tolerance_grad=TOLERANCE,
            tolerance_change=0,
            history_size=10,
            line_search_fn="strong_wolfe",
        )

        def loss(solver: torch.optim.LBFGS = solver, penalty: float = penalty) -> Tensor:
            solver.zero_grad()
            value = F.cross_entropy(feature_MD @ weight_DK + bias_K, target_M) + penalty * weight_DK.square().sum()
            value.backward()
            return value

        solver.step(loss)
        found.append((weight_DK.detach().clone(), bias_K.detach().clone()))
    return found
