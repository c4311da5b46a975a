"""prepare: IDX files in, TFDS records out, standard names, and runs side by side."""

import gzip
import pathlib
import struct
import sys

import numpy as np
import pytest
from etils import epath

from cm_jax import locks
from cm_jax.data import card
from cm_jax.data.prepare import prepare
from cm_jax.errors import UserError
from tests.helpers.data_files import everything, made_up, pairs, write_idx

DEBIAN = pathlib.Path('/usr/share/datasets/fashion-mnist')


def test_idx_comes_back_bit_for_bit(idx_set):
    _, sets, data_dir = idx_set
    for split, prefix in (('train', 'train'), ('test', 't10k')):
        source, found = everything('small', data_dir, split)
        assert found == pairs(*sets[prefix])
        assert (source.image_shape, source.num_classes) == ((7, 5, 1), 3)
        card.check(source.card, source)
        assert sorted(source.card['made_from']['files'])[0] == 't10k-images-idx3-ubyte.gz'
    assert 'tensorflow' not in sys.modules


def test_a_second_run_changes_nothing(idx_set):
    raw, _, data_dir = idx_set
    before = {f: f.stat().st_mtime_ns for f in data_dir.rglob('*')}
    again = prepare('small', str(raw), str(data_dir))
    assert not again.is_new and list(again.cards) == ['train', 'test']
    assert {f: f.stat().st_mtime_ns for f in data_dir.rglob('*')} == before


def test_another_input_under_the_same_name_is_refused(idx_set, tmp_path):
    raw = write_idx(tmp_path / 'other', {'train': made_up(9, (7, 5), 5)})
    with pytest.raises(UserError, match=r'is there already, made from'):
        prepare('small', str(raw), str(idx_set[2]))
    foreign = tmp_path / 'tfds/mine/1.0.0'
    foreign.mkdir(parents=True)
    with pytest.raises(UserError, match=r'is there already, not from this command'):
        prepare('mine', str(raw), str(tmp_path / 'tfds'))


def test_a_standard_name_holds_the_standard_set(tmp_path):
    raw = write_idx(tmp_path / 'raw', {'train': made_up(12, (28, 28))})
    prepared = prepare('fashion_mnist', str(raw), str(tmp_path / 'tfds'))
    assert prepared.folder.name == '3.0.1'
    assert everything('fashion_mnist', tmp_path / 'tfds')[0].num_classes == 10
    with pytest.raises(UserError, match=r'another --dataset, such as fashion_mnist_32'):
        prepare('fashion_mnist', str(raw), str(tmp_path / 'tfds'), size=32)
    prepare('fashion_mnist_32', str(raw), str(tmp_path / 'tfds'), size=32)
    assert everything('fashion_mnist_32', tmp_path / 'tfds')[0].image_shape == (32, 32, 1)


def idx_damage(folder, how):
    pixels, labels = folder / 'train-images-idx3-ubyte', folder / 'train-labels-idx1-ubyte'
    content = pixels.read_bytes()
    if how == 'truncated':
        pixels.write_bytes(content[:-1])
    elif how == 'header only':
        pixels.write_bytes(content[:9])
    elif how == 'wrong magic':
        pixels.write_bytes(b'\x00\x00\x0d\x03' + content[4:])
    elif how == 'truncated gz':
        pixels.unlink()
        (folder / f'{pixels.name}.gz').write_bytes(gzip.compress(content)[:-20])
    elif how == 'no labels':
        labels.unlink()
    elif how == 'fewer labels':
        labels.write_bytes(b'\x00\x00\x08\x01' + struct.pack('>I', 1) + b'\x00')


@pytest.mark.parametrize(
    'how, says',
    [
        ('truncated', 'holds 104 values, its header says 105'),
        ('header only', 'is truncated'),
        ('wrong magic', 'begins with 00000d03.* begin with 00000803'),
        ('truncated gz', 'idx3-ubyte.gz is truncated'),
        ('no labels', "has the images of 'train' alone"),
        ('fewer labels', '3 images, 1 labels'),
    ],
)
def test_damaged_idx_is_one_line_and_writes_nothing(tmp_path, how, says):
    raw = write_idx(tmp_path / 'raw', {'train': made_up(3, (7, 5))})
    idx_damage(raw, how)
    with pytest.raises(UserError, match=says) as error:
        prepare('small', str(raw), str(tmp_path / 'tfds'))
    assert '\n' not in str(error.value) and not (tmp_path / 'tfds').exists()


def test_two_runs_at_once_do_not_mix(tmp_path):
    raw = write_idx(tmp_path / 'raw', {'train': made_up(9, (6, 6))})
    home = tmp_path / 'tfds/small'
    in_use = pytest.raises(UserError, match=r'tfds/small is in use by process')
    with locks.hold(epath.Path(home)), in_use:
        prepare('small', str(raw), str(tmp_path / 'tfds'))
    assert prepare('small', str(raw), str(tmp_path / 'tfds')).is_new


@pytest.mark.slow
@pytest.mark.skipif(not DEBIAN.exists(), reason='needs apt-get install dataset-fashion-mnist')
def test_the_real_fashion_mnist(tmp_path):
    prepared = prepare('fashion_mnist', str(DEBIAN), str(tmp_path))
    assert {split: c['count'] for split, c in prepared.cards.items()} == {
        'train': 60_000,
        'test': 10_000,
    }
    checksum = prepared.cards['test']['checksum']
    assert checksum == '1c706ad5aa51c27f729eade5e233f3a7464291b1294967130c0fe6b9a7406fcd'
    np.testing.assert_allclose(prepared.cards['train']['mean'], 2 * 0.286 - 1, atol=2e-3)
