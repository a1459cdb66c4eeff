"""Targets of the decoder: PCA by hand and against NumPy, statistics by hand, and the way back to pixels."""

import re

import numpy as np
import pytest
import torch

from pretraining.mae.target import PCATarget, PixelTarget, Statistics, fit_pca, patch_statistics, visible_statistics


def test_pca_by_hand() -> None:
    # four points on a cross about (1, 2): variance 8 along x + y, 0.5 along x - y
    points = torch.tensor([[3.0, 4.0], [-1.0, 0.0], [1.5, 1.5], [0.5, 2.5]])
    pca = fit_pca([points[:3], points[3:]], 1)
    half = 0.5**0.5
    assert pca.mean_P.tolist() == [1.0, 2.0]
    assert pca.components_TP[0].tolist() == pytest.approx([half, half])
    assert pca.explained == pytest.approx(16 / 17)
    target = PCATarget(pca.mean_P, pca.components_TP)
    assert target(points[None]).flatten().tolist() == pytest.approx([8**0.5, -(8**0.5), 0, 0], abs=1e-6)
    back = target.pixels(torch.tensor([[[8**0.5]]]), Statistics(torch.zeros(1), torch.ones(1)))
    assert back.flatten().tolist() == pytest.approx([3.0, 4.0])


def test_pca_equals_singular_vectors() -> None:
    patches = torch.randn(200, 12, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.3, 3, 12)
    pca = fit_pca(patches.split(30), 5)
    centred = patches.double().numpy() - patches.double().numpy().mean(axis=0)
    _, values, directions = np.linalg.svd(centred)
    # up to their sign, in float32
    np.testing.assert_allclose(np.abs((pca.components_TP.numpy() * directions[:5]).sum(axis=1)), 1, atol=1e-6)
    assert pca.explained == pytest.approx((values[:5] ** 2).sum() / (values**2).sum(), rel=1e-6)
    largest = pca.components_TP.gather(1, pca.components_TP.abs().argmax(dim=1, keepdim=True))
    assert (largest > 0).all()


def test_all_components_are_the_pixels() -> None:
    patches = torch.randn(3, 50, 6)
    pca = fit_pca(patches, 6)
    target = PCATarget(pca.mean_P, pca.components_TP)
    assert pca.explained == pytest.approx(1)
    coefficients = target(patches)
    back = target.pixels(coefficients, Statistics(torch.zeros(1), torch.ones(1)))
    torch.testing.assert_close(back, patches, rtol=1e-4, atol=1e-5)  # float32 products and back
    # orthonormal: squared errors are those of the pixels
    assert coefficients.square().sum() == pytest.approx(float((patches - pca.mean_P).square().sum()), rel=1e-5)


@pytest.mark.parametrize(("rows", "components"), [(40, 7), (4, 5), (0, 1)])
def test_pca_refuses(rows: int, components: int) -> None:
    patches = [torch.randn(rows, 6)] if rows else []
    said = f"pca_components is {components}; {rows} patches of {6 if rows else 0} numbers were found to fit them on"
    with pytest.raises(ValueError, match=re.escape(said)):
        fit_pca(patches, components)


def test_statistics_by_hand() -> None:
    patches = torch.tensor([[[1.0, 3.0], [10.0, 10.0], [0.0, 8.0]]])
    own = patch_statistics(patches)
    assert own.mean.flatten().tolist() == [2.0, 10.0, 4.0]
    assert own.std.flatten().tolist() == pytest.approx([2**0.5, 1e-3, 32**0.5])
    visible = visible_statistics(patches, torch.tensor([[False, True, False]]))
    assert visible.mean.flatten().tolist() == [3.0]
    assert visible.std.flatten().tolist() == pytest.approx([(2**0.5 + 32**0.5) / 2])


@pytest.mark.parametrize("normalise", [True, False])
def test_pixels_come_back(normalise: bool) -> None:
    patches = torch.randn(2, 4, 12) * 3 + 1
    target = PixelTarget(width=12, normalise=normalise)
    # float32, normalised and put back
    torch.testing.assert_close(target.pixels(target(patches), patch_statistics(patches)), patches, atol=1e-5, rtol=1e-5)
