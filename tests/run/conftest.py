"""Run folders that the tests of this folder only read."""

import tarfile

import pytest
from etils import epath

from cm_jax.run import open_run
from tests.helpers import tiny
from tests.helpers.paths import FIXTURES
from tests.helpers.run_folders import untrained_run


@pytest.fixture(scope='session')
def opened(tmp_path_factory):
    """A run with the steps 0 and 3, not trained."""
    folder = tmp_path_factory.mktemp('run') / 'ect'
    return untrained_run(folder, tiny.get_config('ect'), steps=(0, 3))


@pytest.fixture(scope='session')
def stored(tmp_path_factory):
    """The folder of a training run `ect` and a search `lcsc`, which an earlier version wrote."""
    folder = tmp_path_factory.mktemp('stored')
    with tarfile.open(FIXTURES / 'stored_runs.tar.gz') as archive:
        archive.extractall(folder, filter='data')
    return epath.Path(folder)


@pytest.fixture(scope='session')
def trained(stored):
    """A run with metrics and scores, and the steps 0, 6 and 12."""
    return open_run(stored / 'ect')
