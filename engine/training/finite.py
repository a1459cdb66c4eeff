"""The end of a run whose loss or gradient became NaN or infinite."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor


class NonFiniteError(ArithmeticError):
    """The loss or the gradient became NaN or infinite."""


def non_finite(
    what: str, step: int, losses: dict[str, Tensor], *, where: str, images: Sequence[str], saved: Sequence[Path]
) -> NonFiniteError:
    """Return the error that says what to look at; `where` is of the losses, `saved` are the run's checkpoints."""
    named = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in losses.items())
    return NonFiniteError(
        f"{what} is not finite at step {step} ({named} {where}); images of the batch: {', '.join(images)}. Last good "
        f"checkpoint: {saved[-1] if saved else 'none yet'}. Lower the learning rate, clip the gradient (clip_norm), or "
        "train in 32-true."
    )
