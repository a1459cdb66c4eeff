"""Texts in data frames: names of files may be no UTF-8, which pyarrow, where it is installed, refuses to hold."""

from contextlib import AbstractContextManager


def any_text() -> AbstractContextManager[None]:
    """Return a context in which pandas keeps texts as Python has them."""
    import pandas as pd

    return pd.option_context("mode.string_storage", "python")
