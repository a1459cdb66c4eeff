"""mmseg's preprocessor where the model is: it looks at its own buffers for the device."""

from collections.abc import Sequence
from typing import Any

import torch

from segmentation.host import MODELS, SegDataPreProcessor


@MODELS.register_module()
class PlacedPreprocessor(SegDataPreProcessor):
    """Moves a batch to the device of mean and std.

    mmengine's remembers what its own `to` was told. A module that holds it moves its buffers without calling that, as
    PyTorch's `Module.to` does, and batches would go on to the CPU. mmengine's takes one channel or three; this one any
    number.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], **options: Any) -> None:
        """`mean` and `std` are per channel; the rest is mmseg's."""
        if len(mean) in (1, 3):
            super().__init__(mean=mean, std=std, **options)
            return
        super().__init__(mean=None, std=None, **options)
        self._enable_normalize = True
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where mean and std are."""
        return self.mean.device
