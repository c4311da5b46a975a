"""CIFAR-10: batches that come back bit for bit, and pickles that are refused."""

import gzip
import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest

from cm_jax.data.prepare import prepare
from cm_jax.errors import UserError
from tests.helpers.data_files import everything, made_up, pairs


def cifar_batch(pixels, labels):
    """A batch as Python 2's NumPy pickled it, opcode by opcode: protocol 2, str as bytes."""
    flat = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), 3072).tobytes()
    array = (
        b'cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR(K\x01'
        + b'M' + struct.pack('<H', len(pixels)) + b'M' + struct.pack('<H', 3072) + b'\x86'
        + b'cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff'
        + b'K\x00tb\x89T' + struct.pack('<i', len(flat)) + flat + b'tb'
    )  # fmt: skip
    numbers = b''.join(b'K' + bytes((label,)) for label in labels)
    return b'\x80\x02}(U\x04data' + array + b'U\x06labels](' + numbers + b'eu.'


def cifar_batches(count=4):
    names = [f'data_batch_{n}' for n in range(1, 6)] + ['test_batch']
    sets = {name: made_up(count, (32, 32, 3), seed) for seed, name in enumerate(names)}
    return sets, {name: cifar_batch(*batch) for name, batch in sets.items()}


def write_tar(path, files):
    with tarfile.open(path, 'w:gz') as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f'cifar-10-batches-py/{name}')
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_cifar10_archive_and_folder_come_back_bit_for_bit(tmp_path):
    sets, files = cifar_batches()
    archive = write_tar(tmp_path / 'cifar-10-python.tar.gz', files)
    prepare('cifar10', str(archive), str(tmp_path / 'tfds'))
    source, found = everything('cifar10', tmp_path / 'tfds')
    train = zip(*(sets[f'data_batch_{n}'] for n in range(1, 6)))
    assert found == pairs(*map(np.concatenate, train))
    assert everything('cifar10', tmp_path / 'tfds', 'test')[1] == pairs(*sets['test_batch'])
    assert (source.image_shape, source.num_classes) == ((32, 32, 3), 10)

    folder = tmp_path / 'unpacked/cifar-10-batches-py'
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    # The same bytes, packed or not, inside or around: the same input.
    for path in (folder, folder.parent):
        assert not prepare('cifar10', str(path), str(tmp_path / 'tfds')).is_new


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (os.system, (f'touch {self.target}',))


@pytest.mark.parametrize('key', ['data', 'labels', 'extra'])
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path, key):
    _, files = cifar_batches(1)
    flag = tmp_path / 'it_ran'
    batch = {'data': np.zeros((1, 3072), np.uint8), 'labels': [0], key: Malicious(flag)}
    files['data_batch_2'] = pickle.dumps(batch, protocol=2)
    archive = write_tar(tmp_path / 'cifar-10-python.tar.gz', files)
    with pytest.raises(UserError, match=r'data_batch_2 is refused: it asks for'):
        prepare('cifar10', str(archive), str(tmp_path / 'tfds'))
    assert not flag.exists() and not (tmp_path / 'tfds').exists()


def test_damaged_cifar10_archives_are_one_line(tmp_path):
    _, files = cifar_batches()
    archive = write_tar(tmp_path / 'cifar-10-python.tar.gz', files)
    whole = archive.read_bytes()
    cases = {
        'is truncated': whole[: len(whole) // 2],
        'unknown format': gzip.compress(b'something else'),
        'lacks cifar-10-batches-py/data_batch_1': write_tar(tmp_path / 'e.tar.gz', {}).read_bytes(),
    }
    for says, content in cases.items():
        archive.write_bytes(content)
        with pytest.raises(UserError, match=says):
            prepare('cifar10', str(archive), str(tmp_path / 'tfds'))
    pixels, labels = made_up(2, (32, 32, 3))
    batches = {
        'is no CIFAR-10 batch, or is truncated': files['data_batch_1'][:-50],
        'wanted uint8': pickle.dumps({'data': np.zeros((2, 9), np.uint8), 'labels': [0, 1]}, 4),
        r'labels 0\.\.11; legal: 0\.\.9': cifar_batch(pixels, labels * 11),
    }
    for says, content in batches.items():
        write_tar(archive, {**files, 'data_batch_1': content})
        with pytest.raises(UserError, match=says):
            prepare('cifar10', str(archive), str(tmp_path / 'tfds'))
    assert not (tmp_path / 'tfds').exists()
