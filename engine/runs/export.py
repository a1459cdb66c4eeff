"""A trained model as an ONNX file that is checked against PyTorch before it gets its name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from files.writing import replacing

INPUT = "image"
# float32 through a few dozen layers in another order of sums; measured differences are 1e-6 to 1e-5 of the largest
# output, and a wrong constant or a lost layer gives 1e-2 and more
TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Exportable:
    """What a task gives to other runtimes."""

    module: nn.Module
    """Takes float32 RGB images from 0 to 255, (B, 3, H, W), and returns one tensor per output."""
    size: tuple[int, int]
    """Height and width in pixels, fixed in the file; the batch is free."""
    outputs: tuple[str, ...]


@runtime_checkable
class Exports(Protocol):
    """A task whose model, or the part of it that is a plain function of the image, can be exported."""

    def exportable(self) -> Exportable:
        """Return the part in eval mode."""


class Normalised(nn.Module):
    """Mean and std taken off the pixels, then a function of them."""

    def __init__(self, function: nn.Module, *, mean: Tensor, std: Tensor) -> None:
        """`mean` and `std` are per channel, in units of 0 to 255."""
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.function = function
        self.register_buffer("mean", mean.detach().clone().float().reshape(1, -1, 1, 1))
        self.register_buffer("std", std.detach().clone().float().reshape(1, -1, 1, 1))

    def forward(self, image_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Return what the function returns, as a tuple."""
        found = self.function((image_BCHW - self.mean) / self.std)
        return (found,) if isinstance(found, Tensor) else tuple(found)


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written, and how far it is from PyTorch's output."""

    path: Path
    shapes: dict[str, tuple[int, ...]]
    """Of every output, for one image."""
    differences: dict[str, float]
    """The largest absolute difference over the largest absolute value, per output."""


def export_onnx(wanted: Exportable, path: Path, *, opset: int = 20) -> Exported:
    """Write `path` and return how it compares with PyTorch in float32, for one image and for a batch of three.

    Raises ImportError where onnx, onnxscript or onnxruntime is not installed, ValueError where ONNX Runtime's output
    is further off than TOLERANCE; no file is left then.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{error}: the export needs more packages: pip install onnx onnxruntime onnxscript."
        ) from error
    module = wanted.module.float().cpu().eval()
    generator = torch.Generator().manual_seed(0)
    images = [255 * torch.rand(batch, 3, *wanted.size, generator=generator) for batch in (1, 3)]
    with replacing(path) as temporary, torch.no_grad():
        torch.onnx.export(
            module,
            (images[1],),
            str(temporary),
            input_names=[INPUT],
            output_names=list(wanted.outputs),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=opset,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        session = onnxruntime.InferenceSession(str(temporary), providers=["CPUExecutionProvider"])
        worst = dict.fromkeys(wanted.outputs, 0.0)
        shapes: dict[str, tuple[int, ...]] = {}
        for image_BCHW in images:
            expected = module(image_BCHW)
            found = session.run(list(wanted.outputs), {INPUT: image_BCHW.numpy()})
            for name, mine, theirs in zip(wanted.outputs, expected, found, strict=True):
                scale = float(mine.abs().max()) or 1.0
                worst[name] = max(worst[name], float((mine - torch.from_numpy(theirs)).abs().max()) / scale)
                shapes.setdefault(name, tuple(mine.shape))
        if off := {name: value for name, value in worst.items() if not value <= TOLERANCE}:
            raise ValueError(
                f"{path}: not written, ONNX Runtime's output differs from PyTorch's by {off} of the largest value, "
                f"more than {TOLERANCE:g}; try another --opset than {opset}."
            )
    return Exported(path=path, shapes=shapes, differences=worst)
