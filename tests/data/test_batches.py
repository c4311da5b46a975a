"""Batches: every example once an epoch, resumed and sharded as if they were not."""

import numpy as np
import pytest

from cm_jax import data
from cm_jax.errors import UserError
from tests.helpers.sources import numbered


def indices_of(batch: dict) -> list[int]:
    return np.rint((batch['image'][:, 0, 0, 0] + 1) * 127.5).astype(int).tolist()


def same(one: dict, other: dict) -> bool:
    return all(np.array_equal(one[key], other[key]) for key in ('image', 'label'))


@pytest.mark.parametrize('batch_size', [1, 7, 10, 23, 64])
def test_each_epoch_visits_every_example_once_in_a_new_order(batch_size):
    batches = data.Batches(numbered(23), batch_size, seed=3)
    seen = []
    while len(seen) < 3 * 23:
        seen += indices_of(next(batches))
    epochs = [seen[i * 23 : (i + 1) * 23] for i in range(3)]
    assert all(sorted(epoch) == list(range(23)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_shards_of_all_processes_are_the_global_batch():
    whole = data.Batches(numbered(50), 12, seed=1)
    parts = [data.Batches(numbered(50), 12, 1, p, 4) for p in range(4)]
    for _ in range(12):
        expected, found = next(whole), [next(part) for part in parts]
        joined = {key: np.concatenate([f[key] for f in found]) for key in expected}
        assert same(expected, joined)


def test_a_restored_iterator_gives_the_batches_that_would_have_come():
    straight = data.Batches(numbered(23), 10, seed=5)
    for _ in range(7):
        next(straight)
    resumed = data.Batches(numbered(23), 10, seed=5)
    resumed.restore(straight.state())
    assert all(same(next(straight), next(resumed)) for _ in range(8))
    assert resumed.state() == straight.state() == {'consumed': 150}


def test_seeds_differ_and_repeat():
    first = [indices_of(next(data.Batches(numbered(99), 99, seed))) for seed in (0, 1, 0)]
    assert first[0] == first[2] != first[1]


def test_a_source_too_large_for_memory_gives_the_same_batches(monkeypatch):
    kept = data.Batches(numbered(23), 8, 0)
    monkeypatch.setattr(data, 'CACHE_BYTES', 0)
    read_again = data.Batches(numbered(23), 8, 0)
    assert read_again.source.get is not kept.source.get
    assert all(same(next(kept), next(read_again)) for _ in range(9))


def test_to_float_covers_the_range_and_round_trips():
    levels = np.arange(256, dtype=np.uint8)
    floats = data.to_float(levels)
    assert floats.dtype == np.float32 and floats[0] == -1 and floats[-1] == 1
    assert np.array_equal(np.rint((floats + 1) * 127.5), levels)


@pytest.mark.parametrize('batch_size, processes', [(0, 1), (-4, 1), (10, 4)])
def test_an_impossible_batch_size_is_refused(batch_size, processes):
    with pytest.raises(UserError, match=f'batch_size {batch_size}'):
        data.Batches(numbered(9), batch_size, 0, 0, processes)
