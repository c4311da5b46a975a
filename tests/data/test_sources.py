"""The sources digits and folder: what they read, and what they refuse."""

import sys

import numpy as np
import pytest
from PIL import Image

from cm_jax import data
from cm_jax.data import card, images
from cm_jax.data.sources import digits
from cm_jax.errors import UserError


def test_wrong_names_are_listed():
    with pytest.raises(UserError, match=r'did you mean .digits.*legal: digits, folder, tfds'):
        data.open_source('digit', 'train')
    with pytest.raises(UserError, match=r'legal: all, test, train'):
        data.open_source('digits', 'training')
    with pytest.raises(
        UserError, match=r'config.dataset.pth.*legal: crop, flip, path, source, split'
    ):
        data.open_source('folder', 'train', pth='x')
    with pytest.raises(UserError, match=r'config.dataset lacks path'):
        data.open_source('folder', 'train')


def test_flips_are_of_training_and_never_of_the_source():
    plain = data.open_source('digits', 'train')
    flipped = data.open_source('digits', 'train', flip=True)
    assert flipped.flip and not plain.flip
    everything = np.arange(plain.count)
    assert np.array_equal(flipped.get(everything)[0], plain.get(everything)[0])
    for wrong in ('no', 1, 0.5, None):
        with pytest.raises(UserError, match=f'config.dataset.flip is True or False, got {wrong!r}'):
            data.open_source('digits', 'train', flip=wrong)


def test_digits_are_the_digits_of_the_cards():
    for split in digits.SPLITS:
        source = data.open_source('digits', split)
        card.check(source.card, source)
    batch = next(data.Batches(data.open_source('digits', 'train'), 32, seed=0))
    assert batch['image'].shape == (32, 8, 8, 1) and batch['image'].dtype == np.float32
    assert (
        batch['label'].dtype == np.int32 and -1 <= batch['image'].min() < batch['image'].max() <= 1
    )


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
