"""Files that somebody else made: small ones that ask for much memory, and what is refused aloud."""

import json
import pathlib
import re
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from cm_jax import samplers
from cm_jax.data import readers
from cm_jax.data.prepare import prepare
from cm_jax.evaluation import references
from cm_jax.types import Extractor
from cm_jax.weights import fixtures
from cm_jax.weights.read import read_tensors
from tests.helpers import bombs, limited
from tests.helpers.data_files import made_up, png, write_images
from tests.helpers.paths import FIXTURES
from tests.helpers.refusals import refusal
from tests.helpers.samplers import VE

MEGABYTES = 300  # that a reader may take for any of the bombs
EXTRACTOR = Extractor('made_up', 'fd_made_up', 4, lambda params, x: x, (), None, 'c0ffee')


def nothing() -> None:
    """The readers are imported with this file."""


@pytest.fixture(scope='module')
def call():
    yield from limited.process(nothing)


def read_data(path: pathlib.Path, size: int = 64) -> None:
    """Everything in a data set."""
    crop = 'adm' if path.name == 'narrow.zip' else 'lanczos'
    contents = readers.read(path, size, crop)
    for split in contents.counts:
        for _ in contents.examples(split):
            pass


def place(folder: pathlib.Path, bomb: bombs.Bomb) -> pathlib.Path:
    """Writes a bomb where its reader looks for it."""
    path = folder / bomb.name
    path.write_bytes(bomb.content)
    if bomb.name == 'data_batch_1':
        for name in ('data_batch_2', 'data_batch_3', 'data_batch_4', 'data_batch_5', 'test_batch'):
            (folder / name).write_bytes(bomb.content)
    if bomb.name.startswith('train-images'):
        labels = bytes((0, 0, 8, 1)) + struct.pack('>I', 1) + b'\x00'
        (folder / 'train-labels-idx1-ubyte').write_bytes(labels)
    return path if path.suffix in ('.zip', '.gz') and 'idx' not in path.name else folder


@pytest.mark.parametrize('kind', bombs.ALL)
def test_a_small_file_does_not_take_much_memory(tmp_path, call, kind):
    problems = []
    for number, bomb in enumerate(bombs.ALL[kind]()):
        folder = tmp_path / str(number)
        folder.mkdir()
        path, read = place(folder, bomb), read_data
        if kind != 'data_sets':
            path, read = folder / bomb.name, read_tensors
        try:
            ended = call(limited.measured, read, path)
        except AssertionError as error:
            problems.append(f'{bomb.name}: {error}')
            continue
        if ended.megabytes > MEGABYTES or not re.search(bomb.says, ended.said):
            problems.append(f'{bomb.name}: {ended.megabytes:.0f} MB, {ended.said or "read"}')
    assert not problems, '\n'.join(problems)


@pytest.mark.slow
def test_an_image_of_as_many_pixels_as_are_legal(tmp_path, call):
    """The limit of the process is above what any legal image takes."""
    image = Image.new('RGBA', (1 << 13, 1 << 13))
    image.save(tmp_path / 'a.png', compress_level=1)
    for size in (0, 64):
        ended = call(limited.measured, read_data, tmp_path, size)
        assert not ended.said and 250 < ended.megabytes < 1000, ended


@pytest.mark.parametrize('name', ['../a.png', 'train/../../a.png', '/a.png'])
def test_a_name_that_leads_out_of_a_zip_is_refused_aloud(tmp_path, name):
    path = tmp_path / 'a.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('b.png', png(made_up(1, (4, 4))[0][0]))
        archive.writestr(name, png(made_up(1, (4, 4))[0][0]))
    assert f'its file {name} leads out of the archive' in refusal(readers.read, path)


def test_two_images_of_one_name_are_refused(tmp_path):
    path = tmp_path / 'a.zip'
    with zipfile.ZipFile(path, 'w') as archive, pytest.warns(UserWarning, match='Duplicate'):
        for image in made_up(2, (4, 4))[0]:
            archive.writestr('b.png', png(image))
    assert 'two files b.png' in refusal(readers.read, path)


def test_what_is_no_regular_file_is_not_read(tmp_path):
    (tmp_path / 'a.png').symlink_to('/dev/zero')
    assert 'a.png is no regular file' in refusal(readers.read, tmp_path)


@pytest.mark.parametrize(
    ('offsets', 'says'),
    [
        (((0, 8), (4, 12)), 'b begins at byte 4, not 8: it overlaps the tensor before it'),
        (((0, 8), (0, 8)), 'b begins at byte 0, not 8: it overlaps'),
        (((0, 8), (12, 20)), 'b begins at byte 12, not 8: it leaves a gap before it'),
        (((0, 8), (8, 16)), 'its tensors end at byte 16 of 20'),
    ],
)
def test_tensors_of_safetensors_lie_one_behind_the_other(tmp_path, offsets, says):
    table = {
        name: {'dtype': 'F32', 'shape': [2], 'data_offsets': place}
        for name, place in zip('ab', offsets, strict=True)
    }
    path = tmp_path / 'a.safetensors'
    path.write_bytes(bombs.safetensors(json.dumps(table).encode(), bytes(20)))
    assert says in refusal(read_tensors, path)


@pytest.mark.parametrize('kind', ['c16', 'M8[s]', 'S3', 'O'])
def test_statistics_that_are_no_real_numbers_are_refused(tmp_path, kind):
    path = tmp_path / 'a.npz'
    np.savez(path, mu=np.zeros(4).astype(kind), sigma=np.eye(4))
    said = refusal(references.load, str(path), EXTRACTOR, 8)
    assert re.search('mu is of (complex128|datetime64.s.|.S3|object); legal: real numbers', said)


def test_a_record_of_other_types_is_refused(tmp_path):
    path = tmp_path / 'a.npz'
    whole = {
        'extractor': {'name': 'made_up'},
        'image_shape': None,
        'statistics': 's',
        'source': 's',
    }
    whole |= {'split': 's', 'count': 37, 'checksum': 's', 'rank_deficient': False}
    for change, says in (
        ({'extractor': 'made_up'}, 'lacks extractor'),
        ({'count': '37'}, 'lacks count'),
        ({'count': 1}, 'is of 1 images; legal: 2 to 1,000,000,000,000'),
        ({'count': 10**20}, 'legal: 2 to 1,000,000,000,000'),
        ({'image_shape': [4, 4]}, 'has the image_shape'),
    ):
        record = json.dumps(whole | change)
        np.savez(path, mu=np.zeros(4), sigma=np.eye(4), record=record)
        assert says in refusal(references.load, str(path), EXTRACTOR, 8)


@pytest.mark.parametrize(
    ('config', 'tensor', 'says'),
    [
        ('{', 'a', 'is no whole fixture of a network'),
        ('{"model_channels": "many"}', 'a', 'these are weights of no network known here'),
        ('[]', 'model.map_layer0.weight', 'is no whole fixture of a network'),
    ],
)
def test_a_fixture_of_other_content(tmp_path, config, tensor, says):
    path = tmp_path / 'a.npz'
    arrays = {name: np.zeros(2) for name in fixtures.NEEDED}
    np.savez(path, config_json=config, **{f'param/{tensor}': np.zeros(2)}, **arrays)
    assert says in refusal(fixtures.check, path)


def test_a_fixture_whose_weights_would_be_large(tmp_path):
    path = tmp_path / 'a.npz'
    with np.load(FIXTURES / 'inception_fid.npz') as file:
        arrays = dict(file)
    config = json.loads(str(arrays['config_json']))
    config['shapes']['fc.weight'] = [10**6, 10**6]
    np.savez(path, **arrays | {'config_json': json.dumps(config)})
    assert 'the shape [1000000, 1000000] of fc.weight' in refusal(fixtures.check, path)


# Steps, counts and sizes


@pytest.mark.parametrize(
    'spec', ['heun@1000000000', f'churn@{10**30}', 'dpm3@10001', f'euler@{9:05000}']
)
def test_a_sampler_of_too_many_steps(spec):
    said = refusal(samplers.build, spec, VE)
    assert 'n >= 1 steps, at most 10,000' in said and len(said) < 400


def test_a_grid_of_too_many_levels():
    said = refusal(samplers.build, 'multistep@idx:0,99999999/100000000', VE)
    assert 'the n levels of a grid, at most 10,000' in said


@pytest.mark.parametrize('spec', [f'heun@18+head{9:05000}', f'heun@18+auto2=runs/a,{9:05000}'])
def test_a_number_of_thousands_of_digits(spec):
    assert 'write' in refusal(samplers.build, spec, VE)


def test_a_size_that_no_data_set_has(tmp_path):
    folder, _ = write_images(tmp_path / 'set')
    said = refusal(prepare, 'x', str(folder), str(tmp_path / 'tfds'), 100_000)
    assert said == '--size=100000; legal: 1 to 4096 pixels a side, or 0 to keep the size'
    assert not (tmp_path / 'tfds').exists()
