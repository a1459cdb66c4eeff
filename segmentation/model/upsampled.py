"""UPerNet's features at a third of the arithmetic: the fusing convolution is taken before the coarse maps are enlarged.

mmseg's UPerHead enlarges the maps of strides 8, 16 and 32 to stride 4, joins them with the finest and runs one 3 x 3
convolution over all, half of the whole model's MACs. Bilinear enlargement and a 1 x 1 convolution commute, and
a 3 x 3 convolution is nine 1 x 1 convolutions, shifted and added. So the nine run on the coarse map, and one matrix per
axis enlarges, shifts (zeros come in at the frame) and adds. Likewise the pyramid's last transposed convolution and the
1 x 1 convolution that takes its map into the head are one. The same sums in another order; gradients follow.

Axis letters: B batch, C channels in, O channels out, h x w the coarse grid, H x W the fine one, K the taps of an axis.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segmentation.host import EncoderDecoder, Feature2Pyramid, UPerHead


def conv_of_upsampled(map_BChw: Tensor, weight_OC33: Tensor, size: tuple[int, int]) -> Tensor:
    """Return conv2d(interpolate(map, size), weight, padding=1), (B, O, H, W); bilinear, corners not aligned."""
    batch, channels, h, w = map_BChw.shape
    out = weight_OC33.shape[0]
    # channels out in the order (O, x tap, y tap), so that the y taps lie beside the rows that they are summed with
    weight = weight_OC33.permute(0, 3, 2, 1).reshape(9 * out, channels, 1, 1)
    taps = F.conv2d(map_BChw, weight).reshape(batch * out * 3, 3 * h, w)
    tall = torch.matmul(_enlarge_and_shift(h, size[0], map_BChw), taps)  # (B O Kx, H, w)
    rows = tall.reshape(batch * out, 3, size[0], w).transpose(1, 2).reshape(batch * out * size[0], 3 * w)
    wide = torch.matmul(rows, _enlarge_and_shift(w, size[1], map_BChw).T)
    return wide.reshape(batch, out, *size)


def conv_after_deconv(map_BChw: Tensor, deconv: nn.ConvTranspose2d, weight_OC11: Tensor) -> Tensor:
    """Return conv2d(deconv(map), weight), a 1 x 1 convolution without a bias, as one transposed convolution."""
    weight_OC = weight_OC11[:, :, 0, 0]
    both_IOyx = torch.einsum("oc,icyx->ioyx", weight_OC, deconv.weight)
    bias = None if deconv.bias is None else weight_OC @ deconv.bias
    return F.conv_transpose2d(map_BChw, both_IOyx, bias, stride=deconv.stride)


def fused_features(neck: Feature2Pyramid, head: UPerHead, maps: Sequence[Tensor]) -> Tensor:
    """Return `head._forward_feature(neck(maps))`: what the last convolution classifies, at the finest grid.

    The pyramid is mmseg's for a ViT, the four maps rescaled by 4, 2, 1 and 1/2.
    """
    fine, *others = head.lateral_convs
    finest = conv_after_deconv(neck.upsample_4x[:-1](maps[0]), neck.upsample_4x[-1], fine.conv.weight)
    finer = conv_after_deconv(maps[1], neck.upsample_2x[0], others[0].conv.weight)
    laterals = [
        fine.activate(fine.norm(finest)),
        others[0].activate(others[0].norm(finer)),
        others[1](maps[2]),
        head.psp_forward([neck.downsample_2x(maps[3])]),
    ]
    for level in range(len(laterals) - 1, 0, -1):
        coarser = F.interpolate(laterals[level], size=laterals[level - 1].shape[2:], mode="bilinear")
        laterals[level - 1] = coarser.add_(laterals[level - 1])  # in place: maps of 100 MB are slow to allocate
    levels = [convolve(lateral) for convolve, lateral in zip(head.fpn_convs, laterals[:-1], strict=True)]
    levels.append(laterals[-1])
    fusing = head.fpn_bottleneck
    weights = fusing.conv.weight.split([level.shape[1] for level in levels], dim=1)
    total = F.conv2d(levels[0], weights[0], fusing.conv.bias, padding=1)
    for level, weight in zip(levels[1:], weights[1:], strict=True):
        total.add_(conv_of_upsampled(level, weight, (total.shape[2], total.shape[3])))
    return fusing.activate(fusing.norm(total))


def decode_logits(segmentor: EncoderDecoder, maps: Sequence[Tensor]) -> Tensor:
    """Return the class scores of the decode head at its own resolution from the backbone's maps."""
    head = segmentor.decode_head
    if not isinstance(head, UPerHead):
        return head(maps)
    return head.cls_seg(fused_features(segmentor.neck, head, maps))


def _enlarge_and_shift(coarse: int, fine: int, like: Tensor) -> Tensor:
    """Return (fine, 3 * coarse): enlargement of a row, moved by -1, 0 and 1 for the three taps, zeros from outside.

    At factors 2, 4 and 8 the weights are sixteenths at the finest, so bfloat16 holds them exactly.
    """
    enlarge = F.interpolate(torch.eye(coarse, device=like.device, dtype=like.dtype)[None], size=fine, mode="linear")[
        0
    ].T  # (fine, coarse)
    framed = F.pad(enlarge, (0, 0, 1, 1))
    return torch.cat([framed[tap : tap + fine] for tap in range(3)], dim=1)
