"""How fast training goes."""

import time


class Meter:
    """Seconds per step and the share of them spent waiting, smoothed over about the last fifty steps."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._start = 0.0
        self._mean = 0.0
        self._wait = 0.0
        self._count = 0

    def begin(self) -> None:
        """Start the clock of a step."""
        self._start = time.monotonic()

    def end(self, waited: float) -> None:
        """Stop it; `waited` of its seconds went to waiting for data."""
        self.seconds = time.monotonic() - self._start
        self._count += 1
        weight = max(1 / self._count, 0.02)
        self._mean += weight * (self.seconds - self._mean)
        self._wait += weight * (waited - self._wait)

    def rates(self, batch_size: int) -> dict[str, float]:
        """Return images_per_second and data_wait, a share."""
        return {"images_per_second": batch_size / self._mean, "data_wait": self._wait / self._mean}
