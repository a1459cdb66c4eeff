"""Random masking of patches (MAE, section 3.1): uniform, without replacement, for every image by itself.

Axis letters: B batch, N patches, K kept patches.
"""

import torch
from torch import Tensor


def kept_count(patches: int, mask_ratio: float) -> int:
    """Return how many patches the encoder sees: int(patches * (1 - ratio)), as MAE's code rounds."""
    if not 0 < mask_ratio < 1:  # with no patch hidden the loss is 0 / 0
        raise ValueError(f"mask_ratio {mask_ratio} is outside (0, 1); MAE's is 0.75.")
    kept = int(patches * (1 - mask_ratio))
    if kept < 1:
        raise ValueError(f"mask_ratio {mask_ratio} keeps none of {patches} patches; lower it.")
    return kept


def keep_lowest(noise_BN: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Return the numbers of the `kept` patches of lowest noise (B, K), and the mask (B, N), True where hidden."""
    keep_BK = noise_BN.argsort(dim=1)[:, :kept]
    mask_BN = torch.ones_like(noise_BN).scatter(1, keep_BK, 0.0).bool()
    return keep_BK, mask_BN
