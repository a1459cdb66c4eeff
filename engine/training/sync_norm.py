"""Batch norm over the images of all processes, on a CPU too, where PyTorch's SyncBatchNorm does not run."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm


class SyncBatchNorm(_BatchNorm):
    """Statistics over the batches of all processes, weighed by size; with one process plain batch norm.

    Where the input is decides how, since a model is built before it is known where it will be: PyTorch's kernels on a
    GPU, sums that are exchanged elsewhere. It is no `nn.SyncBatchNorm`, which DDP refuses on a CPU.
    """

    process_group = None
    _check_non_zero_input_channels = nn.SyncBatchNorm._check_non_zero_input_channels

    def forward(self, input: Tensor) -> Tensor:
        """Return `input` (B, C, ...), normalised; in training the running statistics take part of its own."""
        if not (self.training and dist.is_initialized()):
            return super().forward(input)
        if input.device.type == "cuda":
            normalised: Tensor = nn.SyncBatchNorm.forward(self, input)  # type: ignore[arg-type]
            return normalised
        return self._by_sums(input)

    def _check_input_dim(self, input: Tensor) -> None:
        """Take any number of dimensions after the channels."""

    def _by_sums(self, x_BC: Tensor) -> Tensor:
        values = x_BC.float()
        over = [0, *range(2, values.dim())]
        shape = [1, -1, *[1] * (values.dim() - 2)]
        here = values.new_full((1,), values.numel() / values.shape[1])
        # one exchange, through which gradients flow back to every process
        total = all_reduce(torch.cat([values.sum(over), values.square().sum(over), here]))
        sum_C, square_C, count = total.split([self.num_features, self.num_features, 1])
        count = count.clamp_min(1)  # none has an image
        mean_C = sum_C / count
        variance_C = (square_C / count - mean_C.square()).clamp_min(0)
        self._remember(mean_C.detach(), (variance_C * count / (count - 1).clamp_min(1)).detach())
        scale_C = torch.rsqrt(variance_C + self.eps)
        normal = (values - mean_C.view(shape)) * scale_C.view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(x_BC.dtype)

    def _remember(self, mean_C: Tensor, unbiased_C: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        part = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean_C, part)
        self.running_var.lerp_(unbiased_C, part)
