"""Retrieval against its formula, logistic regression against SciPy's solver, memory, statistics and positions."""

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize

from segmentation.probe import readout, search
from segmentation.probe.config import DenseProbeConfig, Search
from segmentation.probe.memory import angles, draw_memory, rows_and_columns, statistics
from segmentation.probe.patches import PatchFeatures
from segmentation.probe.readout import CS, logistic_fits, occurring, regression, retrieve
from tests.segmentation.probe.dense_samples import TINY

NO_FAISS = "the extra `faiss` is not installed"


def shares(count: int, classes: int, rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(rng.dirichlet(np.full(classes, 0.3), count)).half()


@pytest.mark.parametrize("kind", ["exact", "faiss"])
@pytest.mark.parametrize(("queries_at_once", "memory_at_once"), [(1024, 65_536), (7, 11)])
def test_retrieval_by_its_formula(
    kind: Search, queries_at_once: int, memory_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "faiss":
        pytest.importorskip("faiss", reason=NO_FAISS)
    for module in (readout, search):
        monkeypatch.setattr(module, "QUERIES_AT_ONCE", queries_at_once)
    rng = np.random.default_rng(0)
    memory, query = (torch.from_numpy(rng.standard_normal((n, 6))).float() for n in (50, 20))
    share = shares(50, 4, rng)
    pieces = F.normalize(memory, dim=1).split(memory_at_once)
    found = retrieve(pieces, share, query, neighbours=(1, 3, 10, 30, 99), temperature=0.1, search=kind)
    m, q = (x.double().numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True) for x in (memory, query))
    for k, made in found.items():
        for row, similarity in enumerate(q @ m.T):
            nearest = np.argsort(-similarity)[:k]  # of 99 all 50
            weight = np.exp(similarity[nearest] / 0.1)
            expected = (weight / weight.sum()) @ share[nearest].double().numpy()
            np.testing.assert_allclose(made[row], expected, rtol=2e-5, atol=1e-6)  # float32


def test_half_precision_in_pieces_finds_what_the_whole_in_float32_does(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    raw = torch.from_numpy(rng.standard_normal((1000, 12)) * 3 + 1).half()
    mean, std = raw.double().mean(dim=0).float(), raw.double().std(dim=0).float()
    position = torch.from_numpy(rng.integers(0, 5, 1000))
    shift = torch.from_numpy(rng.standard_normal((5, 12))).float()  # a form that depends on the place
    query, share = torch.from_numpy(rng.standard_normal((300, 12))).float(), shares(1000, 4, rng)

    def form(raw_XD: torch.Tensor, place: slice) -> torch.Tensor:
        return (raw_XD - mean) / std - shift[position[place]]

    whole = F.normalize((raw.float() - mean) / std - shift[position], dim=1)
    similarity = F.normalize(query, dim=1) @ whole.T
    for at_once in (65_536, 97):
        monkeypatch.setattr(search, "MEMORY_AT_ONCE", at_once)
        memory = search.Formed(raw_MD=raw, form=form)
        assert len([*memory]) == -(-1000 // at_once)
        for _ in range(2):  # each pass begins anew
            best, place = search.nearest(memory, query, 30)
            assert torch.equal(place, similarity.topk(30, dim=1).indices)
            torch.testing.assert_close(best, similarity.topk(30, dim=1).values, atol=1e-6, rtol=0)  # float32
        found = retrieve(memory, share, query, neighbours=(1, 30), temperature=0.02)
        expected = retrieve([whole], share, query, neighbours=(1, 30), temperature=0.02)
        for k in (1, 30):  # a rounding of 1e-7 is 50 times that in the exponent
            torch.testing.assert_close(found[k], expected[k], atol=1e-4, rtol=0)


def test_faiss_finds_the_same_up_to_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss", reason=NO_FAISS)
    rng = np.random.default_rng(0)
    memory = F.normalize(torch.from_numpy(rng.standard_normal((500, 16))).float(), dim=1)
    memory = torch.cat([memory, memory[:100]])  # every tenth neighbour or so has an equal
    query = torch.from_numpy(rng.standard_normal((200, 16))).float()
    for pieces in ([memory], memory.split(71)):
        exact, faiss = (search.nearest(pieces, query, 30, search=kind) for kind in ("exact", "faiss"))
        torch.testing.assert_close(faiss[0], exact[0], atol=1e-6, rtol=0)  # another order of sums
        for mine, theirs, similarity in zip(exact[1].tolist(), faiss[1].tolist(), exact[0].tolist(), strict=True):
            above = [n for n, value in enumerate(similarity) if value > similarity[-1] + 1e-6]  # the last may tie
            assert {mine[n] % 500 for n in above} <= {place % 500 for place in theirs}
    few = memory[:20]
    assert search.nearest([few], query, 30, search="faiss")[1].sort(dim=1).values.tolist() == [[*range(20)]] * 200


def test_faiss_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ValueError, match=r"--search faiss needs FAISS, which is not installed .*pip install faiss-cpu"):
        search.check_search("faiss")
    search.check_search("exact")


def test_one_query_and_a_memory_of_one() -> None:
    memory, share, query = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.ones(1, 2)
    found = retrieve([memory], share, query, neighbours=(1, 30), temperature=0.02)
    assert found[1].tolist() == found[30].tolist() == [[0.0, 1.0]]
    assert occurring(found[1]).class_K.tolist() == [1]


@pytest.mark.parametrize("c", [0.01, 1.0])
def test_logistic_regression_is_scikit_learns(c: float) -> None:
    """The minimum of its documented objective, found by SciPy's L-BFGS-B in float64 as scikit-learn does."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 5)), rng.integers(0, 3, 60)

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        w, b = values[:15].reshape(5, 3), values[15:]
        logits = x @ w + b
        logits -= logits.max(axis=1, keepdims=True)
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        error = c * (p - np.eye(3)[y])
        value = c * -np.log(p[np.arange(60), y]).sum() + 0.5 * (w**2).sum()
        return value, np.concatenate([(x.T @ error + w).ravel(), error.sum(axis=0)])

    best = minimize(objective, np.zeros(18), jac=True, method="L-BFGS-B", options={"gtol": 1e-9, "ftol": 1e-14}).x
    given = torch.from_numpy(x).float(), torch.from_numpy(y)
    weight, bias = logistic_fits(*given, classes=3, cs=[c, c / 10], iterations=200)[1]
    np.testing.assert_allclose(weight, best[:15].reshape(5, 3), atol=2e-3)
    np.testing.assert_allclose(bias - bias.mean(), best[15:] - best[15:].mean(), atol=2e-3)
    assert objective(np.concatenate([weight.ravel(), bias]))[0] <= objective(best)[0] * (1 + 1e-5)


def test_c_is_chosen_on_held_out_images() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 400)
    feature = torch.from_numpy(np.eye(3)[label] * 4 + rng.standard_normal((400, 3))).float()
    share = torch.eye(5)[torch.from_numpy(label + 1)].half()  # classes 0 and 4 are in no patch
    fit = regression(feature, share, np.full(400, 16), np.arange(400) // 20, iterations=50, seed=0)
    assert fit.class_K.tolist() == [1, 2, 3] and len(fit.held_out_miou) == len(CS)
    assert fit.held_out_miou[fit.chosen] == max(fit.held_out_miou) > 80
    predicted = fit.class_K[fit.logits(feature).score_QK.argmax(dim=1)]
    assert (predicted == torch.from_numpy(label + 1)).float().mean() > 0.9
    with pytest.raises(ValueError, match="of 1 training image: C cannot be chosen on held-out"):
        regression(feature, share, np.full(400, 16), np.zeros(400), iterations=5, seed=0)


def patches(feature: np.ndarray, share: np.ndarray, labelled: np.ndarray) -> PatchFeatures:
    return PatchFeatures(
        feature_NPD=feature.astype(np.float16),
        share_NPC=share.astype(np.float16),
        labelled_NP=labelled.astype(np.int32),
        index_N=np.arange(len(feature)),
        unreadable=(),
        grid=(2, 3),
    )


def test_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    labelled = np.full((5, 6), 8)
    labelled[0, :3] = 0
    train = patches(rng.standard_normal((5, 6, 2)), np.tile([0.25, 0, 0.75], (5, 6, 1)), labelled)
    memory = draw_memory(train, 10, seed=0)
    assert len(memory.image_M) == 10 == len({*zip(memory.image_M.tolist(), memory.position_M.tolist(), strict=True)})
    assert torch.equal(memory.feature_MD, torch.from_numpy(train.feature_NPD[memory.image_M, memory.position_M]))
    assert torch.equal(memory.share_MC, torch.from_numpy(train.share_NPC[memory.image_M, memory.position_M]))
    assert (memory.labelled_M > 0).all()
    assert memory.note == "memory: 10 of 27 training patches with a labelled pixel; 1 of 3 classes are in none and " \
        "are never predicted"  # fmt: skip
    assert torch.equal(draw_memory(train, 10, seed=0).feature_MD, memory.feature_MD)
    assert not torch.equal(draw_memory(train, 10, seed=1).feature_MD, memory.feature_MD)
    assert (
        "27 of 27 training patches with a labelled pixel, all of them (99 were" in draw_memory(train, 99, seed=0).note
    )
    crops = draw_memory(replace(train, index_N=np.array([7, 8, 7, 8, 9])), 99, seed=0)
    assert {*crops.image_M.tolist()} == {7, 8, 9}  # of two crops of an image, the image
    monkeypatch.setattr("segmentation.probe.memory.PATCHES_AT_ONCE", 4)
    pieces = draw_memory(train, 10, seed=0)
    assert torch.equal(pieces.feature_MD, memory.feature_MD) and torch.equal(pieces.share_MC, memory.share_MC)
    with pytest.raises(ValueError, match="no patch of the training images has a labelled pixel"):
        draw_memory(patches(train.feature_NPD, train.share_NPC, np.zeros((5, 6))), 10, seed=0)


def test_forms_of_features() -> None:
    rng = np.random.default_rng(0)
    feature = rng.standard_normal((40, 6, 3)).astype(np.float16).astype(np.float64) * 4 + 1
    share = np.zeros((40, 6, 2))
    share[:, :4, 0], share[:20, 4:, 1], share[20:, 4:] = 1, 1, (0.5, 0.5)
    train = patches(feature, share, np.full((40, 6), 8))
    known = statistics(train)
    flat = torch.from_numpy(train.feature_NPD.reshape(-1, 3).astype(np.float32))
    position = torch.arange(6).repeat(40)
    standardised = known.form(flat, position, "standardised")
    torch.testing.assert_close(standardised.mean(dim=0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(standardised.std(dim=0, unbiased=False), torch.ones(3), atol=1e-4, rtol=0)
    regressed = known.form(flat, position, "position_regressed").view(40, 6, 3)
    torch.testing.assert_close(regressed.mean(dim=0), torch.zeros(6, 3), atol=1e-4, rtol=0)
    assert torch.equal(known.form(flat, position, "raw"), flat)
    assert known.share_PC[0].tolist() == [1, 0] and known.share_PC[5].tolist() == [0.25, 0.75]
    assert known.pixels_C.tolist() == [40 * 4 * 8 + 20 * 2 * 4, 20 * 2 * 8 + 20 * 2 * 4]


def test_positions_alone() -> None:
    grid = (3, 4)
    place = torch.stack(torch.meshgrid(torch.arange(3), torch.arange(4), indexing="ij"), dim=-1).view(-1, 2).float()
    similarity = angles(grid) @ angles(grid).T
    torch.testing.assert_close(similarity.diagonal(), torch.ones(12))
    one_axis = (place[:, None] - place[None]).abs()
    for row in range(12):  # along each axis the farther is the less similar
        for axis, other in ((0, 1), (1, 0)):
            line = [n for n in range(12) if one_axis[row, n, other] == 0]
            ordered = sorted(line, key=lambda n: float(one_axis[row, n, axis]))
            values = [float(similarity[row, n]) for n in ordered]
            assert values == sorted(values, reverse=True)
    assert rows_and_columns(grid).sum(dim=1).tolist() == [2.0] * 12
    assert len(rows_and_columns(grid).unique(dim=0)) == 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memory": 1}, "memory is 1; give 2"),
        ({"temperature": 0.0}, "temperature is 0; give a number above 0"),
        ({"last_blocks": 3}, "last_blocks is 3; it is 1 to 2"),
        ({"linear_iterations": 0}, "linear_iterations is 0"),
        ({"label_fraction": 2.0}, "label_fraction is 2"),
        ({"linear_memory": 1}, "linear_memory is 1; it is a part of the memory, 2 to 100000 patches"),
        ({"memory": 10, "linear_memory": 11}, "linear_memory is 11; it is a part of the memory, 2 to 10"),
        ({"augmentation_epochs": -1}, "augmentation_epochs is -1; give 0"),
        ({"augmentation_epochs": 1, "crop_scale": (0.5, 2.0)}, "crop_scale is 0.5 2; it is the least and the largest"),
        ({"crop_scale": (0.2, 1.0)}, "crop_scale has no effect without crops; give augmentation_epochs"),
        ({"crop_flip": True}, "crop_flip has no effect without crops"),
    ],
)
def test_settings_that_make_no_probe(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DenseProbeConfig(backbone=TINY, **change)
