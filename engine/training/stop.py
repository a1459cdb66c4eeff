"""What stops a run before its last step: somebody, or numbers that are none.

The first Ctrl-C or SIGTERM asks it to save and leave, a second Ctrl-C leaves at once. A loss or gradient that is NaN or
infinite is an error that says what to look at.
"""

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


class StopRequest:
    """Whether someone has asked the run to stop, and how."""

    def __init__(self) -> None:
        self.signal_name: str | None = None

    def __call__(self, number: int, _: FrameType | None) -> None:
        """Keep the signal; a second Ctrl-C ends the program."""
        if self.signal_name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name

    def __bool__(self) -> bool:
        return self.signal_name is not None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catch SIGINT and SIGTERM during a block; the handlers of before come back at its end."""
    request = StopRequest()
    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class NonFiniteError(ArithmeticError):
    """The loss or the gradient became NaN or infinite."""


def non_finite(
    what: str, step: int, losses: Mapping[str, float], *, where: str, images: Sequence[str], saved: Sequence[Path]
) -> NonFiniteError:
    """Return the error that says what to look at; `where` is of the losses, `saved` are the run's checkpoints."""
    named = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
    return NonFiniteError(
        f"{what} is not finite at step {step} ({named} {where}); images of the batch: {', '.join(images)}. Last good "
        f"checkpoint: {saved[-1] if saved else 'none yet'}. Lower the learning rate, clip the gradient (clip_norm), or "
        "train in 32-true."
    )
