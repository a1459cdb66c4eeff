"""What a paper reports of the same question at full scale: printed beside a study's own numbers, never compared."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FullScaleRow:
    """One variant of the paper's table."""

    variant: str
    """In the paper's words."""
    arm: str | None = None
    """Label of the arm that is its small form; None where the study has none."""
    values: dict[str, float]
    """Column of the paper's table -> percent."""


@dataclass(frozen=True, kw_only=True)
class FullScale:
    """A table of a paper."""

    source: str
    """Paper and table."""
    setting: str
    """Model, length and data that the values are of."""
    rows: tuple[FullScaleRow, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the paper's table, in their order."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row.values))
