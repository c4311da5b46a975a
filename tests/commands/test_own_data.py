"""From a folder of pictures to samples: prepare, train, sample; and what does not fit, in one line."""

import numpy as np
import PIL.Image
import pytest

from cm_jax.run import open_run
from tests.helpers import commands

SMALL = ('--config.steps=2', '--config.batch_size=4', '--config.model.channels=4')
SMALL += ('--config.model.channel_mult=(1,)', '--config.sampling.sampler=onestep')


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    """A folder with the folder `pictures` and, below `data`, the data set that `prepare` made of it."""
    home = tmp_path_factory.mktemp('own')
    (home / 'pictures').mkdir()
    generator = np.random.default_rng(0)
    for i in range(6):
        pixels = generator.integers(0, 256, (9 + i, 12, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(home / 'pictures' / f'{i}.png')
    source = [f'--from={home}/pictures', f'--data_dir={home}/data', '--size=8']
    out = commands.run('prepare', '--dataset=flowers', *source)
    train = '--config=configs/own_edm.py --config.dataset.name=flowers --workdir=runs/flowers/edm'
    assert f'next: python -m cm_jax.train {train} --config.dataset.data_dir={home}/data' in out
    return home


def test_three_commands_from_a_folder_of_pictures_to_samples(home):
    data = ['--config.dataset.name=flowers', f'--config.dataset.data_dir={home}/data']
    out = commands.run(
        'train', '--config=configs/own_edm.py', f'--workdir={home}/run', *data, *SMALL
    )
    assert 'flowers, train: 6 images 8x8x3, no labels' in out
    assert f'python -m cm_jax.sample --workdir={home}/run' in out
    out = commands.run('sample', f'--workdir={home}/run', '--sampler=onestep', '--count=4', '--npz')
    assert f'uint8 [4, 8, 8, 3]: {home}/run/samples/onestep_step2_ema0.999_seed0.npz' in out
    assert f'next: python -m cm_jax.evaluate --workdir={home}/run' in out
    assert open_run(home / 'run').config.dataset.name == 'flowers'


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--config.dataset.name=flowers'], ["source is 'digits'", '--config.dataset.source=tfds']),
        (['--config.dataset.path=x'], ['--config.dataset.source=folder']),
        (['--config.dataset.source=tfds'], ['config.dataset.name is empty']),
        (
            ['--config.dataset.source=folder', '--config.dataset.path={home}/data/flowers/1.0.0'],
            ['no labels', '--config.class_conditional=False'],
        ),
        (
            ['--config.dataset.source=folder', '--config.dataset.path={home}/pictures'],
            ['images differ in size', 'python -m cm_jax.prepare --size=N'],
        ),
    ],
    ids=lambda value: '' if isinstance(value[0], list) else value[0][-24:],
)
def test_own_data_in_a_config_of_other_data_say_what_to_add(home, arguments, words):
    arguments = [argument.format(home=home) for argument in arguments]
    line = commands.error(
        'train', '--config=configs/digits_edm.py', f'--workdir={home}/no', *arguments
    )
    assert all(word in line for word in words), line
    assert not (home / 'no').exists()
