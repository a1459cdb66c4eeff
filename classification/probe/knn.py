"""k nearest neighbours among cached features, weighted as in DINO's eval_knn.py (arXiv 2104.14294, section 4.2).

A neighbour of cosine similarity s votes for its class with the weight exp(s / temperature). All is computed where the
features are. Axis letters: N training images, V validation images, D width, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

NEIGHBOURS = (10, 20, 100, 200)  # DINO's; 20 works best there
TEMPERATURE = 0.07
BATCH = 256


def nearest_classes(
    train_ND: Tensor, label_N: Tensor, val_VD: Tensor, *, classes: int, neighbours: tuple[int, ...] = NEIGHBOURS
) -> dict[int, Tensor]:
    """Return by number of neighbours the likeliest classes, (V, min(5, C)), the first the prediction.

    A number above N takes all N.
    """
    bank_DN = F.normalize(train_ND, dim=1).T
    most = min(max(neighbours), bank_DN.shape[1])
    found: dict[int, list[Tensor]] = {k: [] for k in neighbours}
    for query_BD in F.normalize(val_VD, dim=1).split(BATCH):
        similarity_BK, index_BK = (query_BD @ bank_DN).topk(most, dim=1)
        weight_BK, class_BK = (similarity_BK / TEMPERATURE).exp(), label_N[index_BK]
        for k in neighbours:
            votes_BC = query_BD.new_zeros(len(query_BD), classes)
            votes_BC.scatter_add_(1, class_BK[:, :k], weight_BK[:, :k])
            found[k].append(votes_BC.topk(min(5, classes), dim=1).indices)
    return {k: torch.cat(parts) for k, parts in found.items()}
