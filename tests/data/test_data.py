"""Batches, their resume and sharding; the sources digits and folder; data cards."""

import sys

import numpy as np
import pytest
from PIL import Image

from cm_jax import data
from cm_jax.data import card, images
from cm_jax.data.sources import digits
from cm_jax.errors import UserError


def numbered(count: int, shape=(2, 2, 1), num_classes=0) -> data.Source:
    """A source whose image i is filled with i, so that a batch says which examples it holds."""

    def get(indices):
        pixels = np.broadcast_to(indices.reshape(-1, 1, 1, 1), (len(indices), *shape))
        return pixels.astype(np.uint8), indices.astype(np.int32) % max(num_classes, 1)

    return data.Source('numbered', 'train', count, shape, num_classes, get)


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


def test_wrong_names_are_listed():
    with pytest.raises(UserError, match=r'did you mean .digits.*legal: digits, folder, tfds'):
        data.open_source('digit', 'train')
    with pytest.raises(UserError, match=r'legal: all, test, train'):
        data.open_source('digits', 'training')
    with pytest.raises(UserError, match=r'unknown key config.dataset.pth.*legal: path, split'):
        data.open_source('folder', 'train', pth='x')
    with pytest.raises(UserError, match=r'config.dataset lacks path'):
        data.open_source('folder', 'train')


def test_digits_are_the_digits_of_the_cards():
    for split in digits.SPLITS:
        source = data.open_source('digits', split)
        card.check(source.card, source)
    batch = next(data.batches('digits', 'train', 32, seed=0))
    assert batch['image'].shape == (32, 8, 8, 1) and batch['image'].dtype == np.float32
    assert (
        batch['label'].dtype == np.int32 and -1 <= batch['image'].min() < batch['image'].max() <= 1
    )


def test_a_card_holds_what_it_says():
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (40, 4, 6, 3), np.uint8)
    source = data.Source('x', 'train', 40, (4, 6, 3), 5, lambda i: (pixels[i], i.astype(np.int32)))
    made = card.make(source)
    floats = pixels.astype(np.float64) / 127.5 - 1
    np.testing.assert_allclose(made['mean'], floats.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(made['std'], floats.std((0, 1, 2)), atol=1e-6)
    assert made['count'] == made['examples'] == 40 and made['image_shape'] == [4, 6, 3]
    assert card.make(source, 7)['examples'] == 7


def test_a_card_does_not_depend_on_the_chunks(monkeypatch):
    source = numbered(40)
    made = card.make(source)
    monkeypatch.setattr(card, 'CHUNK_BYTES', 12)
    assert card.make(source) == made


def test_a_card_notices_other_data_and_names_the_fields():
    source = numbered(40, num_classes=10)
    made = card.make(source, 20)
    card.check(made, source)
    with pytest.raises(UserError, match=r'count is 44, the card says 40'):
        card.check(made, numbered(44, num_classes=10))
    # One pixel, far too little for the rounded mean, and one label.
    for brighter, other_label in ((1, 0), (0, 1)):

        def get(indices, brighter=brighter, other_label=other_label):
            pixels, labels = source.get(indices)
            pixels[0, 0, 0, 0] += brighter * (indices[0] == 0)
            labels[0] += other_label
            return pixels, labels

        with pytest.raises(UserError, match=r'checksum is'):
            card.check(made, source._replace(get=get))


def save(path, value, mode='L', size=(6, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = value if mode in ('L', 'I;16') else (value,) * len(mode)
    Image.new(mode, size, colour).save(path)


def test_folder_reads_labels_by_sorted_class_name(tmp_path):
    for value, name in enumerate(['dog/a.png', 'cat/b.png', 'cat/deep/c.png', 'emu/d.bmp']):
        save(tmp_path / name, value)
    (tmp_path / 'cat/notes.txt').write_text('no image')
    (tmp_path / 'cat/.hidden.png').write_text('no image')
    source = data.open_source('folder', 'train', path=str(tmp_path))
    assert (source.count, source.image_shape, source.num_classes) == (4, (4, 6, 1), 3)
    pixels, labels = source.get(np.array([3, 0, 2, 1]))
    assert pixels[:, 0, 0, 0].tolist() == [3, 1, 0, 2] and labels.tolist() == [2, 0, 1, 0]
    assert pixels.dtype == np.uint8 and labels.dtype == np.int32
    with pytest.raises(UserError, match=r'unknown split .*legal: train'):
        data.open_source('folder', 'test', path=str(tmp_path))


def test_folder_splits_share_class_numbers_and_colour(tmp_path):
    for split, name in (('train', 'a'), ('train', 'b'), ('test', 'b')):
        save(tmp_path / split / name / '1.png', 7, 'RGB' if split == 'train' else 'L')
    test = data.open_source('folder', 'test', path=str(tmp_path))
    pixels, labels = test.get(np.array([0]))
    assert labels.tolist() == [1] and test.num_classes == 2
    assert pixels.shape == (1, 4, 6, 3) and (pixels == 7).all()


def test_folder_without_classes_has_no_labels(tmp_path):
    for value in range(3):
        save(tmp_path / f'{value}.png', value, 'RGBA')
    source = data.open_source('folder', 'train', path=str(tmp_path))
    pixels, labels = source.get(np.arange(3))
    assert source.num_classes == 0 and not labels.any() and pixels.shape == (3, 4, 6, 3)


def test_folder_errors(tmp_path):
    def opened(path=tmp_path):
        return data.open_source('folder', 'train', path=str(path))

    with pytest.raises(UserError, match=r'missing.* is no folder'):
        opened(tmp_path / 'missing')
    with pytest.raises(UserError, match=r'holds no image'):
        opened()
    save(tmp_path / 'a/1.png', 0)
    save(tmp_path / 'b/2.png', 0, size=(5, 5))
    with pytest.raises(UserError, match=r'b/2.png is 5x5, a/1.png is 4x6; .*--size'):
        opened()
    (tmp_path / 'b/2.png').write_bytes(b'no picture')
    with pytest.raises(UserError, match=r'b/2.png is not a readable image'):
        opened()
    save(tmp_path / 'b/2.png', 0, 'I;16')
    with pytest.raises(UserError, match=r'b/2.png has pixels of mode I;16'):
        opened()
    (tmp_path / 'b/2.png').unlink()
    save(tmp_path / '3.png', 0)
    with pytest.raises(UserError, match=r'3.png lies in no class folder'):
        opened()


@pytest.mark.parametrize(
    'names, splits, classes',
    [
        ('1.png 2.png', 'train', ''),
        ('all/a/1.png all/b/2.png', 'train', 'a b'),
        ('set/train/a/1.png set/test/b/2.png', 'test train', 'a b'),
        ('train/1.png', 'train', ''),
        ('car/1.png train/2.png', 'train', 'car train'),  # a class of its own, no split
    ],
)
def test_layouts(names, splits, classes):
    found = images.layout(names.split(), 'here')
    assert sorted(found.splits) == splits.split() and list(found.class_names) == classes.split()
    found_names = [name for entries in found.splits.values() for name, _ in entries]
    assert sorted(found_names) == sorted(names.split())


def test_a_layout_with_a_folder_beside_the_splits_is_refused():
    with pytest.raises(UserError, match="'extra' beside its split folders"):
        images.layout(['train/1.png', 'test/2.png', 'extra/3.png'], 'here')


def test_reading_data_needs_no_tensorflow():
    import cm_jax.data.sources.tfds  # noqa: F401

    assert 'tensorflow' not in sys.modules
