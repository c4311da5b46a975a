"""flax's checkpoints: what flax has written is read to the bit, and damage is one line."""

import flax.serialization
import ml_dtypes
import msgpack
import numpy as np
import pytest

from cm_jax.errors import UserError
from cm_jax.weights.read import read_tensors
from tests.helpers.weight_files import same, values

DTYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int64, np.uint8, np.bool_)


def test_every_dtype_is_read_exactly(tmp_path):
    path = tmp_path / 'checkpoint_80'  # without a suffix, as JCM calls them
    arrays = {np.dtype(dtype).name: values(dtype) for dtype in DTYPES}
    arrays |= {'empty': np.zeros((0, 3), np.float32), 'scalar': np.float32(2.5)}
    tree = {'step': 7, 'lr': 4e-4, 'params': {'a': arrays}, 'model_state': {}, 'opt': {'0': None}}
    path.write_bytes(flax.serialization.to_bytes(tree))
    tensors, metadata = read_tensors(path)
    same(tensors, {f'params.a.{name}': np.asarray(value) for name, value in arrays.items()})
    assert metadata == {'step': 7, 'lr': 4e-4, 'format': 'flax'}


def test_large_arrays_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(flax.serialization, 'MAX_CHUNK_SIZE', 64)
    tree = {'params': {'kernel': values(), 'bias': values(shape=(3,))}}
    content = flax.serialization.to_bytes(tree)
    assert b'__msgpack_chunked_array__' in content
    (tmp_path / 'c').write_bytes(content)
    same(read_tensors(tmp_path / 'c')[0], {f'params.{k}': v for k, v in tree['params'].items()})


def array(shape, dtype, data, code=1):
    return msgpack.ExtType(code, msgpack.packb((shape, dtype, data)))


def test_damage_is_one_line(tmp_path):
    path = tmp_path / 'checkpoint_80'
    whole = flax.serialization.to_bytes({'params': {'a': values()}})
    damaged = [whole[:length] for length in (1, 9, len(whole) // 2, len(whole) - 1)]
    damaged += [
        msgpack.packb({'params': one})
        for one in (
            array((2,), 'float32', bytes(7)),
            array((-2,), 'float32', b''),
            array((1,), 'object', bytes(8)),
            array((1,), 'float32', bytes(4), code=2),
        )
    ]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(UserError) as error:
            read_tensors(path)
        assert str(path) in str(error.value) and '\n' not in str(error.value)
    assert 'msgpack extension 2' in str(error.value)
