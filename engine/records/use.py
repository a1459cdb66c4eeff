"""What a trained model takes when it is used: the section `use` of a run's record.

Every timed call is kept, so that a table can state a median and its spread, and the first calls, which choose kernels
and fill caches, stand apart. Beside the numbers stands what they were measured on.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median, quantiles

LEAST_CALLS = 3  # of quartiles that say something


@dataclass(frozen=True, kw_only=True)
class BatchUse:
    """Calls on one batch of images, from decoded and resized images on the host to answers on the host."""

    batch: int
    """Images of a call."""
    sizes: tuple[tuple[int, int], ...]
    """Height and width in pixels that the model is given, each once."""
    warm_up_seconds: tuple[float, ...]
    """Wall clock of the first calls, which the numbers leave out."""
    seconds: tuple[float, ...]
    """Wall clock of every timed call."""
    held_bytes: int | None
    """Memory before the first call. CUDA: allocated, weights among it; CPU: resident set of the process, libraries
    among it; None where it is not known."""
    peak_bytes: int | None
    """Most memory from then to the last call, of the same kind; None where it is not known."""

    def __post_init__(self) -> None:
        """Raise ValueError for what no measurement gives."""
        if self.batch < 1 or not self.sizes or min(min(size) for size in self.sizes) < 1:
            raise ValueError(f"a batch of {self.batch} images of {self.sizes} pixels: both must be above zero")
        if len(self.seconds) < LEAST_CALLS or not self.warm_up_seconds:
            raise ValueError(
                f"{len(self.seconds)} timed calls and {len(self.warm_up_seconds)} before them: there are at least "
                f"{LEAST_CALLS} and 1"
            )
        if not all(math.isfinite(each) and each > 0 for each in (*self.seconds, *self.warm_up_seconds)):
            raise ValueError("calls of no time, or of no number of seconds")
        if any(each is not None and each <= 0 for each in (self.held_bytes, self.peak_bytes)):
            raise ValueError("memory of no bytes; what is not known is null")


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What numbers must share to be compared."""

    device: str
    """The GPU's name, or the processor's."""
    threads: int
    """That an operation on the CPU is spread over (PyTorch's own pool)."""
    precision: str
    """32-true, bf16-mixed or 16-mixed."""
    torch: str
    """Version of PyTorch."""
    images_sha256: str
    """Of the images: the digest of their files' digests, in their order."""


@dataclass(frozen=True, kw_only=True)
class Use:
    """One measurement of a trained model."""

    step: int
    """Of the checkpoint."""
    conditions: Conditions
    images: int
    """Different images; a batch of more takes them again."""
    parameters: int
    """Of the whole model."""
    weights_bytes: int
    """Of its parameters and buffers, in the types of the checkpoint; what a file of the weights alone takes."""
    checkpoint_bytes: int
    """Of the run's checkpoint on the disk, the optimizer's state among it."""
    batches: tuple[BatchUse, ...]
    measured: str
    """UTC, ISO 8601."""

    def __post_init__(self) -> None:
        """Raise ValueError for what no measurement gives."""
        counts = (self.conditions.threads, self.images, self.parameters, self.weights_bytes, self.checkpoint_bytes)
        if min(counts) < 1 or self.step < 0 or not self.batches:
            raise ValueError("a measurement without threads, images, parameters, bytes or calls, or of a step below 0")

    @property
    def what(self) -> tuple[object, ...]:
        """What a measurement is of: a later one of the same takes its place."""
        return self.conditions, tuple(each.batch for each in self.batches)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The middle of some times in seconds, and between what the middle half lies."""

    median: float
    low: float
    """The first quartile."""
    high: float
    """The third quartile."""


def spread(seconds: Iterable[float]) -> Spread:
    """Return median and quartiles (those of the calls themselves, interpolated) of at least two calls."""
    found = list(seconds)
    low, _, high = quantiles(found, n=4, method="inclusive")
    return Spread(median=median(found), low=low, high=high)


def with_use(before: tuple[Use, ...], new: Use) -> tuple[Use, ...]:
    """Return the measurements with a new one, in the place of an earlier one of the same."""
    return (*(each for each in before if each.what != new.what), new)


def sizes_text(sizes: tuple[tuple[int, int], ...]) -> str:
    """Return heights and widths in pixels for people: the first, and how many others."""
    more = f" and {len(sizes) - 1} more" if len(sizes) > 1 else ""
    return f"{sizes[0][0]} x {sizes[0][1]}{more}"


def use_lines(use: Use) -> list[str]:
    """Return a measurement as lines for people; what is not known is said."""
    on = use.conditions
    lines = [
        f"step {use.step}: {use.parameters / 1e6:.2f} M parameters, weights {_mib(use.weights_bytes)}, checkpoint "
        f"{_mib(use.checkpoint_bytes)} on disk",
        f"on {on.device}, {on.threads} CPU thread(s), {on.precision}, PyTorch {on.torch}",
    ]
    for each in use.batches:
        found = spread(each.seconds)
        lines.append(
            f"batch {each.batch} of {sizes_text(each.sizes)} pixels: {1e3 * found.median:.2f} ms a call (middle half "
            f"{1e3 * found.low:.2f} to {1e3 * found.high:.2f} of {len(each.seconds)} calls, after "
            f"{len(each.warm_up_seconds)} of warm-up), {each.batch / found.median:.1f} images/s; memory "
            f"{_mib(each.held_bytes)} before, {_mib(each.peak_bytes)} at most"
        )
    return lines


def _mib(size: int | None) -> str:
    return "not known" if size is None else f"{size / 2**20:.1f} MiB"
