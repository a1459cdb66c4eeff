"""The nearest patches of a memory by cosine similarity, in pieces of the memory and of the patches that ask.

A piece of the memory is made as it is searched, so what a search takes does not grow with the memory. Every search
compares each patch with all of the memory: `exact` by a product of matrices and torch's `topk`, `faiss` by FAISS's own
of a flat index of inner products (Douze et al. 2024, arXiv 2401.08281). So they differ in ties and in rounding alone.

Axis letters: M patches of the memory, X of a piece of it, Q patches that ask, B of them at a time, k neighbours,
D width.
"""

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from segmentation.probe.config import Search

QUERIES_AT_ONCE, MEMORY_AT_ONCE = 1024, 65_536  # 256 MB of similarities


@dataclass(frozen=True, kw_only=True)
class Formed:
    """A memory of features in half precision; a pass over it gives them formed, in float32 and of length 1."""

    raw_MD: Tensor
    form: Callable[[Tensor, slice], Tensor]
    """From the features of a piece, float32, and its place in the memory to what is compared."""

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the pieces, (X, D)."""
        for start in range(0, len(self.raw_MD), MEMORY_AT_ONCE):
            place = slice(start, start + MEMORY_AT_ONCE)
            yield F.normalize(self.form(self.raw_MD[place].float(), place), dim=1)


def nearest(
    memory: Iterable[Tensor], query_QD: Tensor, most: int, *, search: Search = "exact"
) -> tuple[Tensor, Tensor]:
    """Return cosine similarities in descending order and places in the memory, both (Q, k); k is `most`, and less where
    the memory is smaller.

    `memory` gives rows of length 1 in pieces.
    """
    queries = F.normalize(query_QD, dim=1).split(QUERIES_AT_ONCE)
    best = [query_BD.new_empty(len(query_BD), 0) for query_BD in queries]
    places = [torch.empty(len(query_BD), 0, dtype=torch.long, device=query_BD.device) for query_BD in queries]
    start = 0
    for piece_XD in memory:
        for number, query_BD in enumerate(queries):
            near_Bk, index_Bk = OF_PIECE[search](piece_XD, query_BD, min(most, len(piece_XD)))
            best_Bk = torch.cat([best[number], near_Bk], dim=1)
            place_Bk = torch.cat([places[number], index_Bk + start], dim=1)
            best[number], order_Bk = best_Bk.topk(min(most, best_Bk.shape[1]), dim=1)
            places[number] = place_Bk.gather(1, order_Bk)
        start += len(piece_XD)
    return torch.cat(best), torch.cat(places)


def check_search(search: Search) -> None:
    """Raise ValueError where a search needs what is not installed."""
    if search == "faiss":
        _faiss()


def _by_topk(piece_XD: Tensor, query_BD: Tensor, most: int) -> tuple[Tensor, Tensor]:
    similarity_Bk, index_Bk = (query_BD @ piece_XD.T).topk(most, dim=1)
    return similarity_Bk, index_Bk


def _by_faiss(piece_XD: Tensor, query_BD: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """FAISS's search on the processor, with as many threads as torch has."""
    faiss = _faiss()
    faiss.omp_set_num_threads(torch.get_num_threads())
    metric = faiss.METRIC_INNER_PRODUCT
    similarity_Bk, index_Bk = faiss.knn(query_BD.cpu().numpy(), piece_XD.cpu().numpy(), most, metric=metric)
    return torch.from_numpy(similarity_Bk).to(query_BD.device), torch.from_numpy(index_Bk).to(query_BD.device)


OF_PIECE: dict[Search, Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]] = {
    "exact": _by_topk,
    "faiss": _by_faiss,
}


def _faiss() -> ModuleType:
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise ValueError(
            f"--search faiss needs FAISS, which is not installed ({error}): pip install faiss-cpu (in a checkout: "
            ".venv/bin/pip install -e '.[faiss]'). --search exact finds the same."
        ) from error
