"""The comparison in words, tables, pictures and a page."""

from typing import Literal

Format = Literal["md", "csv", "json", "latex", "html", "scaling"]
