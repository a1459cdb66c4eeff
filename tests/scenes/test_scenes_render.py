"""Scenes: pure, labelled consistently, never ambiguous."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenes.classes import IGNORE, WORLDS, World, draw_tones, hsv_to_rgb
from scenes.scene import MIN_SIDE, render_scene
from scenes.shapes import OUTLINES, unit_area
from scenes.textures import STUFF_TEXTURES, THING_TEXTURES

OUTDOOR = WORLDS["outdoor"]
EACH_WORLD = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)


@EACH_WORLD
def test_classes_have_ids_textures_and_outlines(world: World) -> None:
    kinds = (*world.stuff, *world.things)
    assert [kind.semantic_id for kind in kinds] == list(range(1, len(kinds) + 1))
    assert [kind.name for kind in kinds] == list(world.semantic_names)
    assert set(STUFF_TEXTURES) >= {kind.name for kind in world.stuff}
    assert set(THING_TEXTURES) & set(OUTLINES) >= {kind.name for kind in world.things}
    # ImageFolder numbers classes alphabetically, COCO loaders by category id: the same order.
    assert [kind.name for kind in world.things] == sorted(kind.name for kind in world.things)
    assert [kind.coco_id for kind in world.things] == sorted({kind.coco_id for kind in world.things})


def test_worlds_share_no_class_outline_or_texture() -> None:
    stuff = [kind.name for world in WORLDS.values() for kind in world.stuff]
    things = [kind.name for world in WORLDS.values() for kind in world.things]
    assert len({*stuff, *things}) == len(stuff) + len(things)
    assert sorted(stuff) == sorted(STUFF_TEXTURES)
    assert sorted(things) == sorted(THING_TEXTURES) == sorted(OUTLINES)
    functions = [*STUFF_TEXTURES.values(), *THING_TEXTURES.values(), *OUTLINES.values()]
    assert len(set(functions)) == len(functions)


def test_no_two_outlines_are_nearly_the_same() -> None:
    """What one covers and the other does not, of both, in any of 24 turns: a tenth of what either covers, or more."""
    axis = np.linspace(-1.0, 1.0, 65)
    x, y = np.meshgrid(axis, axis)
    turns = np.arange(24) * np.pi / 12.0
    for world in WORLDS.values():
        for name in (kind.name for kind in world.things):
            mask = OUTLINES[name](x, y) < 0
            for other in OUTLINES.keys() - {name}:
                for turn in turns:
                    u, v = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
                    turned = OUTLINES[other](u, v) < 0
                    assert (mask ^ turned).sum() > 0.1 * (mask | turned).sum(), (name, other)


@pytest.mark.parametrize(
    ("hsv", "rgb"),
    [
        ((0, 1, 1), (1, 0, 0)),
        ((120, 1, 1), (0, 1, 0)),
        ((240, 1, 0.5), (0, 0, 0.5)),
        ((60, 0.5, 1), (1, 1, 0.5)),
        ((380, 0, 0.25), (0.25, 0.25, 0.25)),
        ((-60, 1, 1), (1, 0, 1)),
    ],
)
def test_hsv_hand_worked(hsv: tuple[float, float, float], rgb: tuple[float, float, float]) -> None:
    np.testing.assert_allclose(hsv_to_rgb(*hsv), rgb, atol=1e-6)


def test_tones_go_from_dark_to_light() -> None:
    rng = np.random.default_rng(0)
    for kind in (kind for world in WORLDS.values() for kind in (*world.stuff, *world.things)):
        dark, light = draw_tones(kind.colouring, rng, odd_hue=False)
        assert dark.max() < light.max()


@pytest.mark.parametrize(
    ("name", "area"),
    [
        ("ball", np.pi),
        ("bolt", 2 * np.sqrt(3) * 0.86**2),
        ("heart", 2 * 0.72**2 + np.pi * 0.36**2 * 2),
        ("house", 1.24 * 0.95 + 0.62 * 0.7),
        ("kite", 0.62 * 1.95),
        ("pill", np.pi * 0.4**2 + 0.8 * 1.16),
        ("tee", 1.44 * 0.46 + 0.48 * (0.95 + 0.22)),
        ("cone", 0.5 * 1.5 * 1.66),
        ("cross", 4 * 0.92 * 0.32 * 2 - (2 * 0.32) ** 2),
        ("gem", 1.4**2),
        ("ring", np.pi * (1 - 0.5**2)),
        ("star", 10 * 0.5 * 0.45 * np.sin(np.pi / 5)),
    ],
)
def test_outline_areas_hand_worked(name: str, area: float) -> None:
    # Counted on a grid of 1024 x 1024: the border is a few thousandths of the area.
    assert unit_area(name) == pytest.approx(area, rel=5e-3)


def test_outlines_lie_within_radius_one() -> None:
    axis = np.linspace(-1.5, 1.5, 301)
    x, y = np.meshgrid(axis, axis)
    for name, outline in OUTLINES.items():
        assert (np.hypot(x, y)[outline(x, y) < 0] <= 1.0 + 1e-9).all(), name


@EACH_WORLD
def test_same_arguments_same_scene(world: World) -> None:
    first, again, other = (render_scene(world, seed, 5, 64) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.image_HW3, again.image_HW3)
    np.testing.assert_array_equal(first.semantic_HW, again.semantic_HW)
    assert len(first.instances) == len(again.instances)
    assert (first.image_HW3 != other.image_HW3).mean() > 0.5


@settings(max_examples=60, deadline=None)
@given(
    world=st.sampled_from(list(WORLDS.values())),
    seed=st.integers(0, 2**40),
    index=st.integers(0, 10**6),
    height=st.integers(MIN_SIDE, 110),
    width=st.integers(MIN_SIDE, 110),
)
def test_labels_agree(world: World, seed: int, index: int, height: int, width: int) -> None:
    scene = render_scene(world, seed, index, (height, width))
    assert scene.image_HW3.shape == (height, width, 3)
    assert scene.image_HW3.dtype == scene.semantic_HW.dtype == np.uint8
    assert scene.semantic_HW.shape == (height, width)
    assert scene.semantic_HW.max() <= len(world.semantic_names)
    assert 1 <= len(scene.instances) <= 5
    covered = np.zeros((height, width), dtype=int)
    for instance in scene.instances:
        covered += instance.mask_HW
        assert (scene.semantic_HW[instance.mask_HW] == instance.category.semantic_id).all()
        left, top, box_width, box_height = instance.box_xywh
        assert 0 <= left < left + box_width <= width
        assert 0 <= top < top + box_height <= height
        assert instance.area == instance.mask_HW[top : top + box_height, left : left + box_width].sum() > 0
    assert covered.max() == 1
    background = np.unique(scene.semantic_HW[covered == 0])
    assert set(background.tolist()) <= {IGNORE, *(kind.semantic_id for kind in world.stuff)}
    assert (background != IGNORE).sum() >= 2
    # Seams between regions only.
    assert (scene.semantic_HW == IGNORE).mean() < 0.12


@EACH_WORLD
def test_main_object_is_never_in_doubt(world: World) -> None:
    for index in range(160):
        scene = render_scene(world, 11, index, 64)
        assert scene.main.category is world.things[index % len(world.things)]
        others = [instance.area for instance in scene.instances if instance is not scene.main]
        assert scene.main.area > 1.5 * max(others, default=0)


@EACH_WORLD
def test_every_class_and_occlusion_occur(world: World) -> None:
    scenes = [render_scene(world, 0, index, 64) for index in range(100)]
    seen = np.unique(np.concatenate([scene.semantic_HW.ravel() for scene in scenes]))
    assert seen.tolist() == list(range(len(world.semantic_names) + 1))
    assert {len(scene.instances) for scene in scenes} == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("size", [MIN_SIDE - 1, (64, 8)])
def test_refuses_small_sizes(size: int | tuple[int, int]) -> None:
    height, width = (size, size) if isinstance(size, int) else size
    with pytest.raises(ValueError, match=re.escape(f"image size {height}x{width}: scenes need 32 pixels")):
        render_scene(OUTDOOR, 0, 0, size)
