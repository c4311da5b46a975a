"""A run folder: whose run it is, how it is claimed and set aside."""

import pytest
from etils import epath

from cm_jax import run_folder
from cm_jax.errors import UserError

CONFIG = {'seed': 0}


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path)


def test_a_folder_whose_config_was_cut_short_is_new(folder):
    (folder / f'{run_folder.CONFIG}.writing').write_text('{"se')
    assert run_folder.is_new(folder, CONFIG)
    (folder / 'thesis.txt').write_text('mine')
    with pytest.raises(UserError, match='is not empty'):
        run_folder.is_new(folder, CONFIG)
