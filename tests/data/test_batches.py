"""Batches: every example once an epoch, resumed, sharded and flipped as if they were not."""

import numpy as np
import pytest

from cm_jax import data
from cm_jax.errors import UserError
from tests.helpers.sources import numbered, sided


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


def stream(source, batch_size: int, processes: int = 1, stop_at: int = 0) -> dict:
    """The first 480 examples, as one batch; the iterators are made again after `stop_at` batches."""
    parts = [data.Batches(source, batch_size, 3, p, processes) for p in range(processes)]
    found = []
    for number in range(480 // batch_size):
        if stop_at and number == stop_at:
            states = [part.state() for part in parts]
            parts = [data.Batches(source, batch_size, 3, p, processes) for p in range(processes)]
            for part, state in zip(parts, states):
                part.restore(state)
        found += [next(part) for part in parts]
    return {key: np.concatenate([batch[key] for batch in found]) for key in ('image', 'label')}


def test_without_flips_a_batch_is_what_it_was_before_there_were_any():
    orders = [np.random.default_rng((3, epoch)).permutation(23) for epoch in range(21)]
    indices = np.concatenate(orders)[:480]
    found = stream(sided(23), 16)
    assert np.array_equal(found['label'], indices)
    assert np.array_equal(found['image'], data.to_float(sided(23).get(indices)[0]))


def test_half_of_the_examples_are_flipped_each_in_some_epochs():
    batches = data.Batches(sided(200, flip=True), 200, seed=4)
    epochs = [next(batches) for _ in range(50)]
    flipped = np.zeros((50, 200), bool)
    for epoch, batch in enumerate(epochs):
        flipped[epoch, batch['label']] = batch['image'][:, 0, 0, 0] == -1
    sd = np.sqrt(flipped.size / 4)
    assert abs(flipped.sum() - flipped.size / 2) < 4 * sd
    # The same holds for each example, within 4.9 standard deviations, and each epoch, within 4.1.
    assert all(abs(flipped.sum(0) - 25) < 4.9 * np.sqrt(50 / 4))
    assert all(abs(flipped.sum(1) - 100) < 4.1 * np.sqrt(200 / 4))
    other = next(data.Batches(sided(200, flip=True), 200, seed=5))
    assert not same(other, epochs[0])


def test_flips_mirror_images_and_change_nothing_else():
    plain, found = stream(sided(23), 16), stream(sided(23, flip=True), 16)
    mirrored = found['image'][:, 0, 0, 0] == -1
    assert 0 < mirrored.sum() < 480 and np.array_equal(found['label'], plain['label'])
    assert np.array_equal(found['image'][~mirrored], plain['image'][~mirrored])
    assert np.array_equal(found['image'][mirrored], plain['image'][mirrored][:, :, ::-1])


def test_flips_are_those_of_the_position_whatever_the_batches_processes_and_resumes():
    source = sided(23, flip=True)
    expected = stream(source, 1)
    for batch_size, processes, stop_at in (
        (480, 1, 0),
        (16, 1, 0),
        (16, 4, 0),
        (48, 4, 3),
        (20, 1, 7),
    ):
        assert same(stream(source, batch_size, processes, stop_at), expected), (
            batch_size,
            processes,
        )


def test_to_float_covers_the_range_and_round_trips():
    levels = np.arange(256, dtype=np.uint8)
    floats = data.to_float(levels)
    assert floats.dtype == np.float32 and floats[0] == -1 and floats[-1] == 1
    assert np.array_equal(np.rint((floats + 1) * 127.5), levels)


@pytest.mark.parametrize('batch_size, processes', [(0, 1), (-4, 1), (10, 4)])
def test_an_impossible_batch_size_is_refused(batch_size, processes):
    with pytest.raises(UserError, match=f'batch_size {batch_size}'):
        data.Batches(numbered(9), batch_size, 0, 0, processes)
