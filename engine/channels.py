"""Images of other than three channels: what a run declares of them, and what it cannot do with them.

`--in-chans` of the ViT is their number, `--channel-mean` and `--channel-std` are their statistics. They are read from
arrays (engine/images/arrays.py). Nothing here imports torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from backbones.weights.normalisation import Normalisation
from engine.images.arrays import RGB

MEASURE = "`python tools/check_data.py channels DIR` prints both of a folder"


@dataclass(frozen=True, kw_only=True)
class ChannelStatistics:
    """Declared statistics of images of other than three channels; the configuration of a task inherits it."""

    channel_mean: tuple[float, ...] | None = None
    """Mean of each channel where --in-chans is not 3, of pixels from 0 to 1 (uint8 / 255, uint16 / 65535, float32 as it
    is). None takes what the initial weights state. tools/check_data.py channels DIR prints the means of a folder."""
    channel_std: tuple[float, ...] | None = None
    """Standard deviation of each channel, as the mean."""

    @property
    def declared(self) -> Normalisation | None:
        """What pixels are normalised with, None where nothing is declared."""
        if self.channel_mean is None or self.channel_std is None:
            return None
        return Normalisation(self.channel_mean, self.channel_std)

    def check_channels(self, channels: int) -> None:
        """Raise ValueError for statistics that are not of so many channels."""
        given = {"channel_mean": self.channel_mean, "channel_std": self.channel_std}
        for name, values in given.items():
            if values is None:
                continue
            if channels == RGB:
                raise ValueError(
                    f"{name} is of images of other than {RGB} channels, and in_chans is {RGB}: RGB is normalised as "
                    "ImageNet's, or as the initial weights say. Drop it, or give --in-chans."
                )
            if len(values) != channels:
                raise ValueError(
                    f"{name} has {len(values)} number(s) and in_chans is {channels}; give one for each channel "
                    f"({MEASURE})."
                )
        if (self.channel_mean is None) != (self.channel_std is None):
            one, other = sorted(given, key=lambda name: given[name] is None)
            raise ValueError(f"{one} was given without {other}; give both ({MEASURE}).")
        if self.channel_mean is not None and self.channel_std is not None:
            Normalisation(self.channel_mean, self.channel_std)  # raises for what is no mean or std
            if getattr(self, "statistics", False):
                raise ValueError(
                    "statistics and channel_mean were both given; one of them says what the channels have."
                )


class OfChannels(Protocol):
    """A configuration that may declare statistics."""

    @property
    def declared(self) -> Normalisation | None:
        """Of its channels."""


def normalisation_for(config: OfChannels, found: Normalisation, channels: int) -> Normalisation:
    """Return what a run normalises pixels with: as declared, as computed, or as `found` with the initial weights.

    Raises ValueError where that is not of so many channels.
    """
    computed: Normalisation | None = getattr(config, "normalisation", None)
    chosen = config.declared or computed or found
    if len(chosen.mean) != channels:
        pretraining = ", or in pre-training from random weights --statistics" if hasattr(config, "statistics") else ""
        raise ValueError(
            f"in_chans is {channels}, and the mean and std of the channels are not known (RGB's are of {RGB}); declare "
            f"--channel-mean and --channel-std, {channels} numbers each ({MEASURE}){pretraining}."
        )
    return chosen


def channel_notes(config: OfChannels, found: Normalisation, channels: int) -> tuple[str, ...]:
    """Return what a record says of images of other than three channels; nothing of RGB."""
    if channels == RGB:
        return ()
    chosen, declared = normalisation_for(config, found, channels), config.declared
    whose = "declared" if declared is not None else "of the initial weights" if chosen == found else "computed"
    notes = [
        f"images of {channels} channels, read from .npy arrays; pixels from 0 to 1 are normalised by mean "
        f"{chosen.mean} and std {chosen.std}, {whose}"
    ]
    if declared is not None and len(found.mean) == channels and found != declared:
        notes.append(f"the initial weights state another mean, {found.mean}, and std {found.std}")
    return tuple(notes)


def refuse_channels(channels: int, what: str) -> None:
    """Raise ValueError for images of other than three channels, of which `what` makes nothing."""
    if channels != RGB:
        raise ValueError(
            f"in_chans is {channels}: {what} is of RGB images, three channels. Others are for pre-training by MAE or "
            "from labels, classification and segmentation (docs/channels.md)."
        )


def refuse_of_rgb(channels: int, **options: tuple[Any, str]) -> None:
    """Raise ValueError for an option that is of RGB images alone, where images have another number of channels.

    Of each option its value, None where it is switched off, and the flag that switches it off.
    """
    for name, (value, way_out) in options.items():
        if channels != RGB and value is not None:
            raise ValueError(f"{name} {value} is of RGB images, and in_chans is {channels}; give {way_out}.")


def channels_of(config: Mapping[str, Any], source: Path) -> int:
    """Return the channels of the images of a run by the configuration in its record, 3 where it names none."""
    backbone = config.get("backbone")
    found = backbone.get("in_chans", RGB) if isinstance(backbone, Mapping) else RGB
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise ValueError(f"{source}: in_chans is {found!r}; it must be a whole number of at least 1.")
    return found
