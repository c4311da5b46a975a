"""prepare: every format in, the TFDS records out, and the source `tfds` that reads them."""

import gzip
import io
import json
import os
import pathlib
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from cm_jax import data
from cm_jax.data import card
from cm_jax.data.prepare import prepare
from cm_jax.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent.parent
DEBIAN = pathlib.Path('/usr/share/datasets/fashion-mnist')


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError('network access')

    monkeypatch.setattr(socket.socket, 'connect', refuse)
    monkeypatch.setattr(socket, 'getaddrinfo', refuse)


def made_up(count, shape, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.uint8) % 3
    return generator.integers(0, 256, (count, *shape), np.uint8), labels


def write_idx(folder, sets, gz=False):
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, (pixels, labels) in sets.items():
        for kind, array in (('images-idx3', pixels), ('labels-idx1', labels)):
            content = bytes((0, 0, 8, array.ndim)) + struct.pack(f'>{array.ndim}I', *array.shape)
            content += array.tobytes()
            name = f'{prefix}-{kind}-ubyte' + ('.gz' if gz else '')
            (folder / name).write_bytes(gzip.compress(content) if gz else content)
    return folder


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


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, 'PNG')
    return file.getvalue()


def everything(name, data_dir, split='train'):
    """All (image bytes, label) pairs of a prepared split, sorted; TFDS shuffles its records."""
    source = data.open_source('tfds', split, name=name, data_dir=str(data_dir))
    pixels, labels = source.get(np.arange(source.count))
    assert pixels.dtype == np.uint8 and labels.dtype == np.int32
    assert pixels.shape == (source.count, *source.image_shape)
    return source, sorted((p.tobytes(), int(n)) for p, n in zip(pixels, labels))


def pairs(pixels, labels):
    return sorted((p.tobytes(), int(n)) for p, n in zip(pixels, labels))


@pytest.fixture(scope='module')
def idx_set(tmp_path_factory):
    """A made-up IDX set, prepared: (its folder, its arrays, the data_dir)."""
    base = tmp_path_factory.mktemp('idx')
    sets = {'train': made_up(200, (7, 5)), 't10k': made_up(20, (7, 5), 1)}
    write_idx(base / 'raw', sets, gz=True)
    prepare('small', str(base / 'raw'), str(base / 'tfds'))
    return base / 'raw', sets, base / 'tfds'


def test_idx_comes_back_bit_for_bit(idx_set):
    _, sets, data_dir = idx_set
    for split, prefix in (('train', 'train'), ('test', 't10k')):
        source, found = everything('small', data_dir, split)
        assert found == pairs(*sets[prefix])
        assert (source.image_shape, source.num_classes) == ((7, 5, 1), 3)
        card.check(source.card, source)
        assert sorted(source.card['made_from']['files'])[0] == 't10k-images-idx3-ubyte.gz'
    assert 'tensorflow' not in sys.modules


def test_plain_tfds_reads_it_too(idx_set):
    import tensorflow_datasets as tfds

    records = tfds.data_source('small', split='train', data_dir=idx_set[2])
    assert len(records) == 200 and records[0]['image'].shape == (7, 5, 1)
    assert tfds.builder('small', data_dir=idx_set[2]).info.features['label'].names == [
        '0',
        '1',
        '2',
    ]


def test_slices_of_a_split(idx_set):
    whole, _ = everything('small', idx_set[2])
    part, _ = everything('small', idx_set[2], 'train[10%:25%]')
    assert part.count == 30 and part.card is None
    everywhere = np.arange(30)
    np.testing.assert_array_equal(part.get(everywhere)[0], whole.get(everywhere + 20)[0])
    assert everything('small', idx_set[2], 'train+test')[0].count == 220
    assert everything('small:1.0.0', idx_set[2])[0].count == 200


@pytest.mark.parametrize(
    'split', ['valid', 'train[:0%]', 'train[9:3]', 'train[abc]', 'all[:3]', '']
)
def test_a_wrong_split_lists_the_legal_ones(idx_set, split):
    with pytest.raises(UserError, match=r'legal: train \(200\), test \(20\), all, and slices'):
        data.open_source('tfds', split, name='small', data_dir=str(idx_set[2]))


def test_a_set_that_is_not_prepared_says_how_to(idx_set, tmp_path):
    cases = {
        'fashion_mnist': f'--dataset=fashion_mnist --data_dir={tmp_path}',
        'cifar10:3.0.2': f'--dataset=cifar10 --from=PATH --data_dir={tmp_path}',
    }
    for name, command in cases.items():
        with pytest.raises(UserError) as error:
            data.open_source('tfds', 'train', name=name, data_dir=str(tmp_path))
        assert str(error.value).endswith(f'python -m cm_jax.prepare {command}')
    with pytest.raises(UserError, match=r'small:2.0.0 is not prepared'):
        data.open_source('tfds', 'train', name='small:2.0.0', data_dir=str(idx_set[2]))
    with pytest.raises(UserError, match=r'legal: dataset, dataset/config'):
        data.open_source('tfds', 'train', name='../small', data_dir=str(idx_set[2]))


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


def write_images(folder, shape=(8, 8, 3)):
    pixels, _ = made_up(6, shape)
    names = [f'{split}/{c}/{n}.png' for split in ('train', 'test') for c in 'ba' for n in range(2)]
    for name, image in zip(names, pixels[[0, 1, 2, 3, 4, 5, 0, 1]]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(image))
    return folder, pixels


def test_an_image_folder_and_a_zip_of_it_come_back_bit_for_bit(tmp_path):
    folder, pixels = write_images(tmp_path / 'set')
    archive = shutil.make_archive(tmp_path / 'zipped', 'zip', tmp_path, 'set')
    for name, path in (('from_folder', folder), ('from_zip', archive)):
        prepare(name, str(path), str(tmp_path / 'tfds'))
        source, found = everything(name, tmp_path / 'tfds')
        assert found == pairs(pixels[:4], [1, 1, 0, 0]) and source.num_classes == 2
        direct = data.open_source('folder', 'train', path=str(folder))
        assert pairs(*direct.get(np.arange(4))) == found


def test_unlabelled_images_of_any_size_are_cropped_and_resized(tmp_path):
    (tmp_path / 'set').mkdir()
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 200  # the centre square is all of one value
    (tmp_path / 'set/1.png').write_bytes(png(wide))
    (tmp_path / 'set/2.png').write_bytes(png(np.full((40, 20), 50, np.uint8)))
    with pytest.raises(UserError, match=r'differ in size.*--size'):
        prepare('mixed', str(tmp_path / 'set'), str(tmp_path / 'tfds'))
    prepare('mixed', str(tmp_path / 'set'), str(tmp_path / 'tfds'), size=4)
    source, found = everything('mixed', tmp_path / 'tfds')
    assert (source.image_shape, source.num_classes) == ((4, 4, 1), 0)
    assert found == [(bytes([50] * 16), 0), (bytes([200] * 16), 0)]


def test_errors_of_folders_and_zips(tmp_path):
    def refused(path, says, dataset='x', **settings):
        with pytest.raises(UserError, match=says) as error:
            prepare(dataset, str(path), str(tmp_path / 'tfds'), **settings)
        assert '\n' not in str(error.value) and not list((tmp_path / 'tfds').rglob('1.0.0'))

    empty, text = tmp_path / 'empty', tmp_path / 'notes.txt'
    empty.mkdir()
    text.write_text('no data')
    refused(empty, 'holds no image, IDX or CIFAR-10 file; legal: a folder of IDX')
    refused(tmp_path / 'missing', 'does not exist; legal:')
    refused(text, 'unknown format; legal:')
    refused(text, "dataset 'A-b'; legal: small letters", dataset='A-b')
    folder, _ = write_images(tmp_path / 'set')
    with pytest.raises(UserError, match=r'notes.txt. cannot be made'):
        prepare('x', str(folder), str(text))
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        archive.writestr('readme.txt', 'no image')
    refused(tmp_path / 'a.zip', 'a.zip holds no image')
    whole = pathlib.Path(shutil.make_archive(tmp_path / 'b', 'zip', folder))
    whole.write_bytes(whole.read_bytes()[:-100])
    refused(whole, 'b.zip is truncated')
    refused(folder, 'size -1 is negative', size=-1)
    image = folder / 'train/a/0.png'
    image.write_bytes(image.read_bytes()[:-60])  # the header is whole, the pixels are not
    refused(folder, 'train/a/0.png is not a readable image')
    assert not (tmp_path / 'tfds/x/.preparing').exists()


def test_images_that_differ_in_size_say_what_to_do(tmp_path):
    import tensorflow_datasets as tfds

    with tfds.core.registered.skip_registration():

        class Varying(tfds.core.GeneratorBasedBuilder):
            name, VERSION = 'varying', tfds.core.Version('1.0.0')

            def _info(self):
                features = tfds.features.FeaturesDict({'image': tfds.features.Image()})
                return tfds.core.DatasetInfo(builder=self, features=features)

            def _split_generators(self, dl_manager):
                return {'same': self._generate_examples(4, 4), 'odd': self._generate_examples(4, 5)}

            def _generate_examples(self, first, second):
                for index, side in enumerate((first, second)):
                    yield index, {'image': png(np.zeros((side, 4, 3), np.uint8))}

    Varying(data_dir=tmp_path).download_and_prepare(file_format='array_record')
    source, _ = everything('varying', tmp_path, 'same')
    assert (source.image_shape, source.num_classes) == ((4, 4, 3), 0)
    with pytest.raises(
        UserError, match=r'different sizes.*--dataset=varying_64 --from=PATH --size=64'
    ):
        data.open_source('tfds', 'odd', name='varying', data_dir=str(tmp_path))


def command(*flags, program=('-m', 'cm_jax.prepare'), **environment):
    return subprocess.run(
        [sys.executable, *program, *flags],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT), **environment},
    )


def test_the_command_writes_prints_the_card_and_is_quiet(tmp_path):
    raw = write_idx(tmp_path / 'raw', {'train': made_up(9, (6, 6))})
    flags = ('--dataset=small', f'--from={raw}', f'--data_dir={tmp_path}/tfds')
    first, second = command(*flags), command(*flags)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert first.stdout.splitlines()[0].endswith('written')
    assert first.stdout.splitlines()[1].startswith('small train: 9 images 6x6x1, 3 classes, mean')
    assert second.stdout.splitlines()[0].endswith('is already prepared from this')
    assert second.stdout.splitlines()[1:] == first.stdout.splitlines()[1:]
    assert first.stderr == second.stderr == ''


def test_the_command_finds_debians_files_and_says_when_it_cannot(tmp_path):
    raw = write_idx(tmp_path / 'raw', {'train': made_up(9, (28, 28))})
    dpkg = tmp_path / 'bin/dpkg'
    dpkg.parent.mkdir()
    listing = '\n'.join(['/.', '/usr', *map(str, raw.iterdir())])
    dpkg.write_text(f'#!/bin/sh\n[ "$*" = "-L dataset-fashion-mnist" ] && echo "{listing}"\n')
    dpkg.chmod(0o755)
    flags = ('--dataset=fashion_mnist', f'--data_dir={tmp_path}/tfds')
    found = command(*flags, PATH=f'{dpkg.parent}:{os.environ["PATH"]}')
    assert 'fashion_mnist train: 9 images' in found.stdout, found.stderr
    absent = command(*flags, PATH='')
    assert absent.returncode == 2 and absent.stdout == ''
    assert len(absent.stderr.splitlines()) == 1
    assert absent.stderr.startswith('error: no --from')
    assert 'apt-get install dataset-fashion-mnist' in absent.stderr


def test_a_killed_run_leaves_nothing_and_the_next_starts_clean(tmp_path):
    raw = write_idx(tmp_path / 'raw', {'train': made_up(9, (6, 6))})
    killed = f"""
import os
from cm_jax.data import card, prepare
card.make = lambda source: os._exit(9)
prepare.prepare('small', {str(raw)!r}, {str(tmp_path / 'tfds')!r})
"""
    assert command(program=('-c', killed)).returncode == 9
    assert (tmp_path / 'tfds/small/.preparing').exists()
    with pytest.raises(UserError, match=r'not prepared'):
        data.open_source('tfds', 'train', name='small', data_dir=str(tmp_path / 'tfds'))
    prepared = prepare('small', str(raw), str(tmp_path / 'tfds'))
    assert prepared.is_new and os.listdir(tmp_path / 'tfds/small') == ['1.0.0']
    stored = json.loads((prepared.folder / 'data_card_train.json').read_text())
    assert stored == prepared.cards['train']


def test_two_runs_at_once_do_not_mix(tmp_path):
    import fcntl

    raw = write_idx(tmp_path / 'raw', {'train': made_up(9, (6, 6))})
    home = tmp_path / 'tfds/small'
    home.mkdir(parents=True)
    handle = os.open(home, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(UserError, match=r'another prepare is writing'):
        prepare('small', str(raw), str(tmp_path / 'tfds'))
    os.close(handle)
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
