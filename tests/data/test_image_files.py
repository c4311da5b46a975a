"""Folders and archives of images: bit for bit, cropped and resized, and what is refused."""

import pathlib
import shutil
import zipfile

import numpy as np
import pytest

from cm_jax import data
from cm_jax.data.prepare import prepare
from cm_jax.errors import UserError
from tests.helpers.data_files import everything, pairs, png, write_images


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
    refused(folder, '--size=-1; legal: 1 to 4096 pixels', size=-1)
    image = folder / 'train/a/0.png'
    image.write_bytes(image.read_bytes()[:-60])  # the header is whole, the pixels are not
    refused(folder, 'train/a/0.png is not a readable image')
    assert not (tmp_path / 'tfds/x/.preparing').exists()
