"""mmseg's preprocessor where the model is: it looks at its own buffers for the device."""

import torch

from segmentation.host import MODELS, SegDataPreProcessor


@MODELS.register_module()
class PlacedPreprocessor(SegDataPreProcessor):
    """Moves a batch to the device of mean and std.

    mmengine's remembers what its own `to` was told. A module that holds it moves its buffers without calling that, as
    PyTorch's `Module.to` does, and batches would go on to the CPU.
    """

    @property
    def device(self) -> torch.device:
        """Where mean and std are."""
        return self.mean.device
