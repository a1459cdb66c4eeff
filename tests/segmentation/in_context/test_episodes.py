"""Which examples are drawn for which query, and what is said where there are none or too few."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from segmentation.in_context.episodes import draw_episodes


@dataclass(frozen=True)
class Picture:
    name: str
    folder: str = "train"
    box: tuple[float, float, float, float] = (0, 0, 1, 1)

    @property
    def path(self) -> Path:
        return Path(self.folder) / self.name

    def mask(self) -> np.ndarray:
        return np.ones((2, 2), dtype=bool)


def pictures(count: int, folder: str) -> list[Picture]:
    return [Picture(f"{number}.jpg", folder) for number in range(count)]


def test_the_same_seed_draws_the_same_and_another_others() -> None:
    pools, asked = {0: pictures(50, "train")}, {0: pictures(20, "val")}
    one, two, three = (draw_episodes(pools, asked, ["cat"], shots=3, most=10, seed=seed) for seed in (0, 0, 1))
    assert one == two != three and one.queries == 10
    for episode in one.classes[0].episodes:
        assert len({example.name for example in episode.examples}) == 3
    assert [e.query for e in one.classes[0].episodes] == [e.query for e in three.classes[0].episodes] == asked[0][::2]
    # more shots begin with the fewer, and more queries hold the fewer
    more = draw_episodes(pools, asked, ["cat"], shots=5, most=20, seed=0).classes[0].episodes
    by_query = {episode.query: episode.examples[:3] for episode in more}
    assert all(by_query[episode.query] == episode.examples for episode in one.classes[0].episodes)


def test_a_class_that_has_no_example_and_one_that_has_few() -> None:
    pools, asked = {0: pictures(1, "train"), 2: pictures(9, "train")}, {n: pictures(4, "val") for n in range(3)}
    drawn = draw_episodes(pools, asked, ["cat", "dog", "cow"], shots=5, most=50, seed=0)
    assert [each.name for each in drawn.classes] == ["cat", "cow"]
    assert drawn.notes == (
        "queries: 8 of 8, of 2 of 3 classes, 50 a class at most",
        "classes without an example to show: 1 (dog); their 4 queries are left out",
        "classes with fewer than 5 examples, of which all are shown: 1 (cat (1))",
    )


def test_no_class_has_both() -> None:
    with pytest.raises(ValueError, match=r"of 2 classes 1 have images to show, and 1 images to ask about"):
        draw_episodes({0: pictures(1, "t")}, {1: pictures(1, "v")}, ["cat", "dog"], shots=1, most=5, seed=0)


def test_an_image_is_no_example_of_itself() -> None:
    same = pictures(2, "train")
    drawn = draw_episodes({0: same}, {0: same}, ["cat"], shots=5, most=5, seed=0)
    assert [(e.query.name, [x.name for x in e.examples]) for e in drawn.classes[0].episodes] == [
        ("0.jpg", ["1.jpg"]), ("1.jpg", ["0.jpg"])
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no class has both"):
        draw_episodes({0: same[:1]}, {0: same[:1]}, ["cat"], shots=1, most=5, seed=0)
