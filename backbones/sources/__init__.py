"""Every family of checkpoints by its declared name, one small file each; `FAMILIES` is their table."""

from importlib import import_module

from backbones.sources.source import Source
from backbones.weights.declaration import FAMILIES


def _source(place: str) -> Source:
    module, _, name = place.partition(".")
    source: Source = getattr(import_module(f"{__name__}.{module}"), name)
    return source


SOURCES: dict[str, Source] = {name: _source(place) for name, place in FAMILIES.items()}
