"""The ViT: what it encodes, what it never sees, its maps, and the forms that it takes."""

import math
import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from backbones.config import ViTConfig
from backbones.layers import Block
from backbones.position import sincos_table
from backbones.vit import ViT

TINY = ViTConfig(embed_dim=16, depth=3, num_heads=2, patch_size=8, image_size=(32, 32))
WINDOWS = replace(TINY, relative_position="decomposed", window_size=3, global_blocks=(1,))
TABLES = replace(TINY, relative_position="table", qkv_bias="qv", layer_scale=0.1, position="none")
SHARED = replace(TINY, relative_position="shared_table", window_size=3, global_blocks=(1,))
COMPUTED = replace(TINY, position="computed")
FORMS = {
    **{"plain": (TINY, True), "windows": (WINDOWS, False), "tables": (TABLES, True), "shared": (SHARED, False)},
    "computed": (COMPUTED, True),
}


def random_vit(form: str, **options: float) -> ViT:
    """A ViT of a form of FORMS, every parameter random, so that none hides behind its initial value."""
    architecture, class_token = FORMS[form]
    vit = ViT(architecture, class_token=class_token, **options)
    for parameter in vit.parameters():
        nn.init.normal_(parameter, std=0.3)
    return vit


def gradients(vit: nn.Module) -> dict[str, Tensor]:
    """The gradient of every parameter, all of which must have one."""
    found = {name: parameter.grad.clone() for name, parameter in vit.named_parameters() if parameter.grad is not None}
    assert found.keys() == dict(vit.named_parameters()).keys()
    return found


@pytest.mark.parametrize("class_token", [True, False])
def test_all_patches_kept_is_forward(class_token: bool) -> None:
    vit = ViT(TINY, class_token=class_token).eval()
    image = torch.randn(2, 3, 32, 32)
    everything = torch.arange(16).expand(2, -1)
    assert torch.equal(vit.encode_visible(image, everything), vit(image))
    assert vit(image).shape == (2, 16 + class_token, 16)


def test_tokens_follow_the_order_of_keep() -> None:
    vit = ViT(TINY).double().eval()
    image = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    keep = torch.tensor([[3, 11, 6]])
    permuted = vit.encode_visible(image, keep[:, [2, 0, 1]])
    expected = vit.encode_visible(image, keep)[:, [0, 3, 1, 2]]
    torch.testing.assert_close(permuted, expected, rtol=0, atol=1e-12)  # sums in another order, float64


def test_masked_patches_are_never_seen() -> None:
    vit = ViT(TINY).eval()
    image = torch.randn(2, 3, 32, 32)
    keep = torch.tensor([[0, 5, 15], [1, 2, 8]])
    seen = vit.encode_visible(image, keep)
    other = torch.full_like(image, 1e3)
    for row, patches in enumerate(keep.tolist()):
        for patch in patches:
            y, x = 8 * (patch // 4), 8 * (patch % 4)
            other[row, :, y : y + 8, x : x + 8] = image[row, :, y : y + 8, x : x + 8]
    assert torch.equal(vit.encode_visible(other, keep), seen)
    assert not torch.allclose(vit(other), vit(image))


@pytest.mark.parametrize("class_token", [True, False])
def test_feature_maps_of_a_wide_image(class_token: bool) -> None:
    vit = ViT(TINY, class_token=class_token, final_norm=False).eval()
    image = torch.randn(2, 3, 24, 40)
    maps = vit.feature_maps(image, [0, 2])
    assert [tuple(m.shape) for m in maps] == [(2, 16, 3, 5)] * 2
    tokens = vit(image)[:, vit.num_prefix_tokens :]  # without a final norm, the residual stream
    assert torch.equal(maps[1].flatten(2).transpose(1, 2), tokens)
    # row-major: patch 7 of a grid of 5 columns stands in row 1, column 2
    assert torch.equal(maps[1][:, :, 1, 2], tokens[:, 7])


def test_maps_are_taken_before_the_norm() -> None:
    normed, plain = ViT(TINY), ViT(TINY, final_norm=False)
    plain.load_state_dict({name: t for name, t in normed.state_dict().items() if not name.startswith("norm.")})
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(normed.feature_maps(image, [2])[0], plain.feature_maps(image, [2])[0])
    assert torch.equal(normed(image), normed.norm(plain(image)))


@pytest.mark.parametrize("out_indices", [[], [3], [-1, 2], [1, 1], [2, 0]])
def test_bad_out_indices_are_refused(out_indices: list[int]) -> None:
    message = re.escape(f"out_indices {out_indices} must be ascending block numbers from 0 to 2.")
    with pytest.raises(ValueError, match=message):
        ViT(TINY).feature_maps(torch.zeros(1, 3, 32, 32), out_indices)


@settings(deadline=None, max_examples=40)
@given(form=st.sampled_from(sorted(FORMS)), size=st.tuples(st.integers(1, 60), st.integers(1, 60)))
def test_any_size(form: str, size: tuple[int, int]) -> None:
    vit = random_vit(form).eval()
    image = torch.randn(1, 3, *size)
    rows, columns = -(-size[0] // 8), -(-size[1] // 8)
    padded = torch.zeros(1, 3, rows * 8, columns * 8)
    padded[:, :, : size[0], : size[1]] = image
    with torch.no_grad():
        tokens = vit(image)
        (last,) = vit.feature_maps(image, [2])
        assert torch.equal(tokens, vit(padded))
    assert tokens.shape == (1, vit.num_prefix_tokens + rows * columns, 16)
    assert last.shape == (1, 16, rows, columns)
    assert bool(tokens.isfinite().all())


@pytest.mark.parametrize("form", sorted(FORMS))
def test_one_image_does_not_see_another(form: str) -> None:
    vit = random_vit(form).double().eval()
    pair = torch.randn(2, 3, 40, 24, dtype=torch.float64)
    # float64: a product of two images may sum in another order than that of one
    torch.testing.assert_close(vit(pair)[1:], vit(pair[1:]), rtol=0, atol=1e-12)


def test_windows_do_not_see_one_another() -> None:
    vit = ViT(replace(TINY, window_size=2, position="none"), class_token=False).eval()
    image = torch.randn(1, 3, 32, 32)
    changed = image.clone()
    changed[:, :, 16:, 16:] += 1.0  # the last of four windows
    before, after = (vit.feature_maps(x, [2])[0] for x in (image, changed))
    same = (before == after).all(dim=1)[0]
    assert same.tolist() == [[True] * 4, [True] * 4, [True, True, False, False], [True, True, False, False]]
    # a window as large as the image, or larger, is the whole image but for the padding
    whole = ViT(replace(TINY, position="none"), class_token=False).eval()
    windowed = ViT(replace(TINY, window_size=4, position="none"), class_token=False).eval()
    windowed.load_state_dict(whole.state_dict())
    assert torch.equal(windowed(image), whole(image))


def test_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="image of 1 channels for a patch projection of 3; inflate the projection"):
        ViT(TINY)(torch.zeros(1, 1, 32, 32))
    assert ViT(replace(TINY, in_chans=5))(torch.zeros(1, 5, 32, 32)).shape == (1, 17, 16)


@pytest.mark.parametrize("architecture", [WINDOWS, replace(TINY, window_size=2), replace(WINDOWS, window_size=0)])
def test_class_token_has_no_place_in_windows(architecture: ViTConfig) -> None:
    with pytest.raises(ValueError, match=r"a class token has no place in (windows|decomposed relative positions)"):
        ViT(architecture)


@pytest.mark.parametrize("form", ["windows", "tables", "shared"])
def test_masked_images_have_no_windows(form: str) -> None:
    with pytest.raises(ValueError, match="need every patch of a grid; a masked image has none"):
        random_vit(form).encode_visible(torch.zeros(1, 3, 32, 32), torch.tensor([[0, 1]]))


@pytest.mark.parametrize("class_token", [True, False])
def test_kept_patches_are_an_image_of_their_own(class_token: bool) -> None:
    vit = ViT(TINY, class_token=class_token).double().eval()
    keep = [3, 11, 6, 0]
    image = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    # the kept patches side by side in one row, with the positions that they had
    strip = ViT(TINY.at(8, 32), class_token=class_token).double().eval()
    state = vit.state_dict()
    kept_rows = [*range(vit.num_prefix_tokens), *(vit.num_prefix_tokens + patch for patch in keep)]
    strip.load_state_dict({**state, "pos_embed": state["pos_embed"][:, kept_rows]})
    patches = [image[..., 8 * (n // 4) : 8 * (n // 4) + 8, 8 * (n % 4) : 8 * (n % 4) + 8] for n in keep]
    expected = strip(torch.cat(patches, dim=3))
    # float64: the convolution sums a patch's pixels in another order
    torch.testing.assert_close(vit.encode_visible(image, torch.tensor([keep])), expected, rtol=0, atol=1e-12)


def test_distillation_token() -> None:
    vit = ViT(replace(TINY, distilled=True)).eval()
    assert vit.num_prefix_tokens == 2 and vit.pos_embed.shape == (1, 18, 16)
    image = torch.randn(2, 3, 32, 32)
    tokens = vit(image)
    assert tokens.shape == (2, 18, 16)
    assert torch.equal(vit.encode_visible(image, torch.arange(16).expand(2, -1)), tokens)
    (last,) = vit.feature_maps(image, [2])
    assert torch.equal(vit.norm(last.flatten(2).transpose(1, 2)), tokens[:, 2:])
    # class token first: with both tokens and their rows of the table exchanged, so are the outputs
    other = ViT(replace(TINY, distilled=True)).eval()
    state = vit.state_dict()
    rows = [1, 0, *range(2, 18)]
    swapped = {"cls_token": state["dist_token"], "dist_token": state["cls_token"]}
    other.load_state_dict({**state, **swapped, "pos_embed": state["pos_embed"][:, rows]})
    # float32: attention sums over the tokens in another order
    torch.testing.assert_close(other(image), tokens[:, rows], rtol=1e-5, atol=1e-5)
    assert ViT(replace(TINY, distilled=True), class_token=False).num_prefix_tokens == 0


@pytest.mark.parametrize("form", sorted(FORMS))
def test_activation_checkpointing_changes_nothing(form: str) -> None:
    plain, saving = random_vit(form, drop_path=0.5), random_vit(form, drop_path=0.5, activation_checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    image = torch.randn(4, 3, 40, 24)
    losses = []
    for vit in (plain, saving):
        torch.manual_seed(7)  # the same branches are dropped, and dropped again when they are computed again
        maps = vit.feature_maps(image, [0, 2])
        loss = vit.norm(vit(image)).square().mean() + sum(m.square().mean() for m in maps)
        loss.backward()
        losses.append(loss.detach())
    assert torch.equal(*losses)
    expected, made = gradients(plain), gradients(saving)
    for name in expected:
        # float32: where a tensor has two uses its gradients may be added in another order
        torch.testing.assert_close(made[name], expected[name], rtol=1e-4, atol=1e-5 * float(expected[name].abs().max()))


def test_activation_checkpointing_keeps_less() -> None:
    def kept(vit: ViT) -> int:
        sizes: list[int] = []

        def pack(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            vit(torch.randn(4, 3, 64, 64))
        return sum(sizes)

    # of each block one tensor of 4 x 65 x 16 numbers, of which a block otherwise keeps more than ten
    assert kept(random_vit("plain", activation_checkpointing=True)) * 3 < kept(random_vit("plain"))


@pytest.mark.parametrize("form", sorted(FORMS))
def test_traces_as_one_graph(form: str) -> None:
    vit = random_vit(form)
    image = torch.randn(1, 3, 40, 20)  # every table is resized
    torch.compiler.reset()
    traced = torch.compile(vit, fullgraph=True, dynamic=False, backend="eager")
    with torch.no_grad():
        # float32: the caches of eager mode are left out, all else is the same
        torch.testing.assert_close(traced(image), vit(image), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "form", ["plain", *(pytest.param(form, marks=pytest.mark.sweep) for form in sorted({*FORMS} - {"plain"}))]
)
def test_compiled_is_eager(form: str) -> None:
    vit = random_vit(form)
    torch.compiler.reset()
    compiled = torch.compile(vit, fullgraph=True, dynamic=False, backend="inductor")
    image = torch.randn(2, 3, 40, 20)  # every table is resized
    results = []
    for run in (vit, compiled):
        vit.zero_grad()
        tokens = run(image)
        tokens.square().sum().backward()
        results.append((tokens.detach(), gradients(vit)))
    (expected, wanted), (made, found) = results
    # float32: fused kernels round at other places; three blocks, values up to about 10
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)
    for name in wanted:
        atol = 1e-4 * float(wanted[name].abs().max())
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-3, atol=atol, msg=name)


@pytest.mark.parametrize("form", sorted(FORMS))
def test_bfloat16_is_near_float32(form: str) -> None:
    vit = random_vit(form).eval()
    image = torch.randn(2, 3, 40, 24)
    with torch.no_grad():
        expected = vit(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            made = vit(image)
    # 8 bits of mantissa through three blocks: a few per cent of the tokens' spread
    assert float((made.float() - expected).std() / expected.std()) < 0.05


def test_drop_path_rises_linearly() -> None:
    four = ViTConfig(embed_dim=16, depth=4, num_heads=2, patch_size=8, image_size=(32, 32))
    paths = [block.drop_path for block in ViT(four, drop_path=0.3).blocks if isinstance(block, Block)]
    assert isinstance(paths[0], nn.Identity)
    assert [path.drop_prob for path in paths[1:]] == pytest.approx([0.1, 0.2, 0.3])
    assert all(isinstance(block.drop_path, nn.Identity) for block in ViT(four).blocks if isinstance(block, Block))
    one = ViT(replace(four, depth=1), drop_path=0.3)  # a single block is the first, which drops nothing
    assert isinstance(one.blocks[0].drop_path, nn.Identity)


def test_optional_parameters() -> None:
    names = {name for name, _ in ViT(TINY, class_token=False, final_norm=False).named_parameters()}
    full = {name for name, _ in ViT(TINY).named_parameters()}
    assert full - names == {"cls_token", "norm.weight", "norm.bias"}
    assert not ViT(TINY, train_position=False).pos_embed.requires_grad
    assert ViT(TINY).pos_embed.requires_grad
    assert ViT(replace(TINY, position="none")).pos_embed is None


def test_names_of_the_forms() -> None:
    def block(form: str, number: int) -> dict[str, tuple[int, ...]]:
        start = f"blocks.{number}."
        state = {name: tuple(p.shape) for name, p in random_vit(form).named_parameters()}
        plain = {f"blocks.{number}.{name}" for name, _ in ViT(TINY).blocks[number].named_parameters()}
        return {
            name.removeprefix(start): s for name, s in state.items() if name.startswith(start) and name not in plain
        }

    # windows of 3 x 3 and a grid of 4 x 4: 2 * 3 - 1 and 2 * 4 - 1 distances
    assert block("windows", 0) == {"attn.rel_pos_h": (5, 8), "attn.rel_pos_w": (5, 8)}
    assert block("windows", 1) == {"attn.rel_pos_h": (7, 8), "attn.rel_pos_w": (7, 8)}
    table = {"attn.relative_position_bias_table": (7 * 7 + 3, 2)}
    vectors = dict.fromkeys(("attn.q_bias", "attn.v_bias", "gamma_1", "gamma_2"), (16,))
    assert block("tables", 0) == {**vectors, **table}
    assert "blocks.0.attn.qkv.bias" not in dict(random_vit("tables").named_parameters())
    assert block("shared", 0) == block("shared", 1) == {}
    shared = {name: tuple(p.shape) for name, p in random_vit("shared").named_parameters() if "rel_pos" in name}
    assert shared == {
        "rel_pos_bias.relative_position_bias_table": (7 * 7, 2),
        "window_rel_pos_bias.relative_position_bias_table": (5 * 5, 2),
    }
    # the tables for images of another size than the positions'
    larger = ViT(replace(WINDOWS, relative_size=(64, 48)), class_token=False)
    assert larger.blocks[1].attn.rel_pos_h.shape == (15, 8) and larger.blocks[1].attn.rel_pos_w.shape == (11, 8)
    assert larger.pos_embed.shape == (1, 16, 16)


def test_new_relative_positions_have_no_effect() -> None:
    image = torch.randn(2, 3, 40, 24)
    plain = ViT(TINY, class_token=False).eval()
    for form in (replace(TINY, relative_position="decomposed"), replace(TINY, relative_position="table")):
        vit = ViT(form, class_token=False).eval()
        new = {n: p for n, p in vit.state_dict().items() if "rel" in n}
        vit.load_state_dict({**plain.state_dict(), **new})
        assert torch.equal(vit(image), plain(image))
    scaled = ViT(replace(TINY, layer_scale=1.0), class_token=False).eval()
    new = {n: p for n, p in scaled.state_dict().items() if "gamma" in n}
    scaled.load_state_dict({**plain.state_dict(), **new})
    assert torch.equal(scaled(image), plain(image))


def test_sincos_table_of_a_wide_architecture() -> None:
    wide = ViT(TINY.at(16, 48))
    assert torch.equal(wide.pos_embed, sincos_table(16, (2, 6), num_prefix_tokens=1))


@pytest.mark.parametrize("size", [(32, 32), (16, 48), (40, 24)])
def test_computed_positions_are_those_of_a_sincos_table_made_for_the_size(size: tuple[int, int]) -> None:
    computed, table = ViT(COMPUTED).double().eval(), ViT(TINY.at(*size)).double().eval()
    assert computed.pos_embed is None
    table.load_state_dict({**computed.state_dict(), "pos_embed": sincos_table(16, table.architecture.grid, 1).double()})
    image, keep = torch.randn(1, 3, *size, dtype=torch.float64), torch.tensor([[3, 0, 5]])
    # the table is float32
    torch.testing.assert_close(computed(image), table(image), rtol=0, atol=1e-6)
    torch.testing.assert_close(
        computed.encode_visible(image, keep), table.encode_visible(image, keep), rtol=0, atol=1e-6
    )
    none = ViT(replace(TINY, position="none")).double().eval()
    none.load_state_dict(computed.state_dict())
    assert not torch.allclose(computed(image), none(image), atol=1e-2)
    with pytest.raises(ValueError, match="embed_dim 18 is not divisible by 4"):
        replace(COMPUTED, embed_dim=18)


def test_initial_weights() -> None:
    vit = ViT(ViTConfig(embed_dim=64, depth=1, num_heads=2, patch_size=8, image_size=(32, 32), position="learned"))
    # Xavier on the patch embedding as one matrix of 3 * 8 * 8 pixels -> 64: uniform in +-sqrt(6 / (192 + 64))
    bound = math.sqrt(6 / 256)
    assert 0.99 * bound < float(vit.patch_embed.proj.weight.detach().abs().max()) <= bound
    # 1,088 numbers of std 0.02: their own std is within 10 % (4.6 standard errors)
    assert float(vit.pos_embed.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert vit.pos_embed.shape == (1, 17, 64)
