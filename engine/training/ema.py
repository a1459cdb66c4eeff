"""The exponential moving average of the weights (EMA), which is then evaluated and exported in place of the last ones.

After every step that is taken the EMA becomes `decay * ema + (1 - decay) * weights`; it starts at the initial weights,
as in timm's ModelEma. Buffers (running statistics of batch norm) are not averaged: those of the model are used.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim.swa_utils import get_ema_multi_avg_fn


class EMA:
    """The EMA of the trained parameters of a model, by name; shards where the parameters are shards."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start at the weights as they are."""
        self.decay = decay
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.values: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._trained.items()}
        self._blend = get_ema_multi_avg_fn(decay)

    def update(self) -> None:
        """Take in the weights after a step."""
        self._blend(list(self.values.values()), [p.detach() for p in self._trained.values()], 0)

    def exchange(self) -> None:
        """Put the EMA into the model and its weights here; a second call puts both back, bit for bit."""
        with torch.no_grad():
            for name, parameter in self._trained.items():
                kept = parameter.detach().clone()
                parameter.copy_(self.values[name])
                self.values[name].copy_(kept)

    def take(self, values: dict[str, Tensor], path: Path) -> None:
        """Go on from an EMA that was saved. Raises ValueError where `path` holds another model's."""
        if odd := sorted(values.keys() ^ self.values.keys()):
            raise ValueError(f"{path}: the EMA of its weights is of another model: {', '.join(odd[:5])}.")
        for name, value in self.values.items():
            value.copy_(values[name])

    def initial_share(self, steps: int) -> float:
        """Return the weight that the initial weights still have after `steps`."""
        return self.decay**steps


@contextmanager
def averaged(ema: EMA | None, scaler: GradScaler | None) -> Iterator[None]:
    """Take in the weights after the step that is made inside, unless float16's scaler skipped it.

    It lowers its scale where gradients overflowed, and there alone. None for no EMA, or for no scaler.
    """
    before = scaler.get_scale() if ema is not None and scaler is not None else 0.0
    yield
    if ema is not None and (scaler is None or scaler.get_scale() >= before):
        ema.update()


@contextmanager
def with_ema(ema: EMA | None) -> Iterator[None]:
    """Have the model hold its EMA for a while; None changes nothing."""
    if ema is None:
        yield
        return
    ema.exchange()
    try:
        yield
    finally:
        ema.exchange()
