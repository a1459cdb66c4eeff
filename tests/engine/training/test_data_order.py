"""The data order and its sharding."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.training.data import Loading, Shard, eval_batches, image_at, train_batches


@given(st.integers(1, 60), st.integers(0, 5), st.integers(0, 3))
def test_every_epoch_is_a_permutation(size: int, epoch: int, seed: int) -> None:
    seen = [image_at(epoch * size + i, seed=seed, size=size) for i in range(size)]
    assert sorted(seen) == list(range(size))


def test_epochs_and_seeds_differ() -> None:
    orders = {tuple(image_at(e * 50 + i, seed=s, size=50) for i in range(50)) for e in range(3) for s in range(3)}
    assert len(orders) == 9


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(0, 9))
def test_ranks_and_micro_batches_partition_the_step(world: int, accumulate: int, share: int, step: int) -> None:
    batch = world * accumulate * share
    parts = [Shard(rank, world, accumulate).positions(step, batch) for rank in range(world)]
    flat = sorted(p for rank in parts for micro in rank for p in micro)
    assert flat == list(range(step * batch, (step + 1) * batch))


def test_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ValueError, match=r"batch_size 10 cannot be shared by 4 processes .* multiple of 8"):
        Shard(0, 4, 2).positions(0, 10)


def test_resumed_order_is_the_tail_of_the_whole(toy_task) -> None:
    whole = [
        b.ids for b in train_batches(toy_task(), seed=1, steps=range(9), batch_size=8, shard=Shard(), loading=Loading())
    ]
    tail = [
        b.ids
        for b in train_batches(toy_task(), seed=1, steps=range(4, 9), batch_size=8, shard=Shard(), loading=Loading())
    ]
    assert whole[4:] == tail


def test_ranks_share_the_validation_images(toy_task) -> None:
    task = toy_task()
    ids = [
        i
        for rank in range(3)
        for b in eval_batches(task.val_data, task.collate, batch_size=2, shard=Shard(rank, 3), loading=Loading())
        for i in b.ids
    ]
    assert sorted(ids) == sorted(f"{i}.jpg" for i in range(8))


def test_all_unreadable_stops_with_the_last_name(toy_task) -> None:
    task = toy_task()
    task.train_data.unreadable = set(range(24))
    with pytest.raises(ValueError, match=r"50 images in a row cannot be read; the last: folder/\d+\.jpg"):
        next(train_batches(task, seed=0, steps=range(1), batch_size=8, shard=Shard(), loading=Loading()))
