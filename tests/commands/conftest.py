"""The runs that several tests of the commands look at."""

import pytest

from tests.helpers import commands
from tests.helpers.story import search_arguments


@pytest.fixture(scope='session')
def story(tmp_path_factory):
    """The folder of the runs teacher, ect and lcsc, of seconds each."""
    runs = tmp_path_factory.mktemp('story')
    commands.run('train', '--config=tests/helpers/tiny.py:edm', f'--workdir={runs}/teacher')
    commands.run(
        'train',
        '--config=tests/helpers/tiny.py:ect',
        f'--workdir={runs}/ect',
        f'--config.init_from.workdir={runs}/teacher',
        '--config.init_from.ema=0.9',
    )
    commands.run('search', *search_arguments(runs))
    commands.run('evaluate', f'--workdir={runs}/ect')
    samplers = ['--sampler=heun@3', '--sampler=onestep']
    commands.run('evaluate', f'--workdir={runs}/teacher', '--ema=', *samplers)
    return runs
