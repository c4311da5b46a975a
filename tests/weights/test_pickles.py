"""Nothing that a pickle asks for runs: it is refused by name."""

import os
import pickle

import numpy as np
import pytest

from cm_jax.errors import UserError
from cm_jax.weights.read import read_tensors
from tests.helpers import weight_files
from tests.helpers.weight_files import WRITERS, same, values


@pytest.mark.parametrize('suffix', WRITERS)
def test_a_pickle_that_calls_a_command_is_refused(tmp_path, suffix):
    marker, path = tmp_path / 'marker', tmp_path / f'weights{suffix}'
    tree = {'weight': weight_files.tensor(values()), 'more': weight_files.Command(marker)}
    path.write_bytes(WRITERS[suffix](tree))
    with pytest.raises(UserError, match=r'refused: .*weights\S* asks for os\.system; only tensors'):
        read_tensors(path)
    assert not marker.exists()


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_command_is_refused_in_every_protocol(tmp_path, protocol):
    class Real:
        def __reduce__(self):
            return os.system, (f'touch {tmp_path / "marker"}',)

    path = tmp_path / 'weights.pkl'
    path.write_bytes(pickle.dumps({'a': Real()}, protocol))
    with pytest.raises(UserError, match=rf'asks for {os.system.__module__}\.system'):
        read_tensors(path)
    assert not (tmp_path / 'marker').exists()


@pytest.mark.parametrize(
    'module, name',
    [
        ('builtins', 'eval'),
        ('builtins', 'getattr'),
        ('torch', 'load'),
        ('torch.nn.functional', 'relu'),
        ('torch.nn.modules.module', 'torch.hub.load'),
        ('numpy', 'load'),
        ('cm_jax.weights.pickles', 'unpickle'),
    ],
)
def test_what_is_no_tensor_is_refused_by_name(tmp_path, module, name):
    path = tmp_path / 'weights.pkl'
    path.write_bytes(weight_files.plain_pickle({'a': weight_files.Named(module, name)}))
    with pytest.raises(UserError, match=f'refused: .* asks for {module}.{name}; only'):
        read_tensors(path)


def test_an_array_of_objects_is_refused(tmp_path):
    np.savez(tmp_path / 'a.npz', a=np.array([{}]))
    (tmp_path / 'b.pkl').write_bytes(pickle.dumps({'a': np.array([{}])}))
    for name in ('a.npz', 'b.pkl'):
        with pytest.raises(UserError, match='legal: real numbers'):
            read_tensors(tmp_path / name)


def test_a_pickle_cannot_change_what_the_next_one_gets(tmp_path):
    """BUILD can set attributes of whatever a pickle is handed."""
    path = tmp_path / 'weights.pkl'
    poison = b'\x80\x02cnumpy\nndarray\n(N}(X\x05\x00\x00\x00value' + b'NutbX\x01\x00\x00\x00ab.'
    path.write_bytes(poison)
    with pytest.raises(UserError):
        read_tensors(path)
    path.write_bytes(pickle.dumps({'a': values()}))
    same(read_tensors(path)[0], {'a': values()})
