"""Weight files: exact values from every format, and one line for a damaged file."""

import pickle

import numpy as np
import pytest

from cm_jax.errors import UserError
from cm_jax.weights.read import read_tensors
from cm_jax.weights.write import write_safetensors
from tests.helpers import weight_files
from tests.helpers.refusals import refusal
from tests.helpers.weight_files import DTYPES, WRITERS, Storage, Tensor, same, values

# Formats


@pytest.mark.parametrize('suffix', WRITERS)
def test_every_dtype_is_read_exactly(tmp_path, suffix):
    path = tmp_path / f'weights{suffix}'
    for dtype in DTYPES:  # `same` compares and names the dtypes
        a, gain = {'weight': values(dtype), 'bias': values(dtype, (5,))}, values(dtype, ())
        tree = {'a': {k: weight_files.tensor(v) for k, v in a.items()}}
        tree |= {'gain': weight_files.tensor(gain), 'step': 7, 'name': 'x'}
        path.write_bytes(WRITERS[suffix](tree))
        tensors, metadata = read_tensors(path)
        same(tensors, {'a.weight': a['weight'], 'a.bias': a['bias'], 'gain': gain})
        assert metadata['step'] == 7 and metadata['name'] == 'x', dtype


@pytest.mark.parametrize('suffix', WRITERS)
def test_strides_offsets_and_shared_storages(tmp_path, suffix):
    path, storage = tmp_path / f'weights{suffix}', Storage(np.arange(24, dtype=np.float32))
    tree = {
        'all': Tensor(storage, 0, (4, 6), (6, 1)),
        'transposed': Tensor(storage, 0, (6, 4), (1, 6)),
        'part': Tensor(storage, 7, (2, 3), (12, 2)),
        'expanded': Tensor(storage, 3, (2, 2), (0, 1)),
        'nothing': Tensor(storage, 0, (0, 3), (3, 1)),
    }
    path.write_bytes(WRITERS[suffix](tree))
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    wanted = {
        'all': whole,
        'transposed': whole.T,
        'part': np.float32([[7, 9, 11], [19, 21, 23]]),
        'expanded': np.float32([[3, 4], [3, 4]]),
        'nothing': np.zeros((0, 3), np.float32),
    }
    same(read_tensors(path)[0], wanted)


def test_an_edm_snapshot_is_read_and_its_source_is_not_run(tmp_path):
    marker, path = tmp_path / 'marker', tmp_path / 'network-snapshot.pkl'
    source = f'import os\nos.system("touch {marker}")\n'
    tensors = {'model.map_noise.freqs': values(), 'model.enc.8x8_conv.weight': values()}
    tensors |= {'model.enc.8x8_conv.bias': values(shape=(3,)), 'model.map_label.weight': values()}
    net = weight_files.module('EDMPrecond', tensors, source)
    loss = weight_files.Persistent('EDMLoss', {'P_mean': -1.2, 'P_std': np.sqrt(1.44)}, source)
    path.write_bytes(weight_files.plain_pickle({'ema': net, 'loss_fn': loss}))
    found, metadata = read_tensors(path)
    same(found, {f'ema.{name}': value for name, value in tensors.items()})
    assert metadata['ema.class_name'] == 'EDMPrecond'
    assert metadata['ema.init_kwargs.sigma_data'] == 0.5
    assert not marker.exists()


def test_numpy_values_in_a_pickle(tmp_path):
    path = tmp_path / 'weights.pkl'
    arrays = {
        'c': values(),
        'f': np.asfortranarray(values()),
        'big': values('>f4'),
        'x': values()[1],
    }
    path.write_bytes(pickle.dumps(arrays | {'scalar': np.float64(0.5)}, 4))
    same(read_tensors(path)[0], arrays | {'scalar': np.array(0.5)})


def test_keys_that_are_no_names(tmp_path):
    path, arrays = tmp_path / 'weights.pkl', [values(), values()[1]]
    path.write_bytes(pickle.dumps({'a': {None: 7, (0, 1): arrays[0], b'b': arrays[1], 3: 4}}))
    tensors, metadata = read_tensors(path)
    same(tensors, {'a.tuple1': arrays[0], 'a.bytes2': arrays[1]})
    assert metadata == {'a.NoneType0': 7, 'a.3': 4, 'format': 'pickle'}


def test_npz_has_its_strings_as_metadata(tmp_path):
    path = tmp_path / 'weights.npz'
    np.savez(path, **{'param/a.weight': values(), 'config_json': '{}'})
    tensors, metadata = read_tensors(path)
    same(tensors, {'param/a.weight': values()})
    assert metadata['config_json'] == '{}'


def test_safetensors_round_trip_is_bit_identical(tmp_path):
    path = tmp_path / 'weights.safetensors'
    tensors = {np.dtype(dtype).name: values(dtype) for dtype in DTYPES}
    tensors |= {'scalar': np.float32(2) * np.ones(()), 'empty': np.zeros((0, 2), np.float32)}
    tensors['turned'] = values().T
    write_safetensors(path, tensors, {'step': '7'})
    found, metadata = read_tensors(path)
    same(found, tensors)
    assert metadata == {'step': '7', 'format': 'safetensors'}


# Damaged files


def files():
    """{file name: content} of each format, with a few hundred values."""
    tree = {'a': weight_files.tensor(values()), 'b': weight_files.tensor(values(shape=(300,)))}
    return {f'weights{suffix}': write(tree) for suffix, write in WRITERS.items()}


@pytest.mark.parametrize('kind', [*WRITERS, '.npz', '.safetensors'])
def test_a_truncated_file_is_one_line(tmp_path, kind):
    path = tmp_path / f'weights{kind}'
    if kind == '.npz':
        np.savez(path, a=values(), b=values(shape=(300,)))
    elif kind == '.safetensors':
        write_safetensors(path, {'a': values(), 'b': values(shape=(300,))}, {})
    else:
        path.write_bytes(files()[path.name])
    whole = path.read_bytes()
    read_tensors(path)
    for length in (0, 1, 5, 12, 40, len(whole) // 2, len(whole) - 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError) as error:
            read_tensors(path)
        assert str(path) in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('suffix', WRITERS)
def test_a_tensor_that_reaches_outside_its_storage(tmp_path, suffix):
    path = tmp_path / f'weights{suffix}'
    storage = Storage(np.arange(24, dtype=np.float32))
    for view in (  # offset, shape, stride
        (0, (4, 7), (7, 1)),
        (-1, (2,), (1,)),
        (0, (2, 2), (-1, 1)),
        (24, (1,), (1,)),
        (0, (2,), ()),
    ):
        path.write_bytes(WRITERS[suffix]({'a': Tensor(storage, *view)}))
        assert 'damaged' in refusal(read_tensors, path), view


def test_containers_without_end(tmp_path):
    path, ring = tmp_path / 'weights.pkl', []
    ring.append({'a': ring})
    path.write_bytes(pickle.dumps(ring))
    with pytest.raises(UserError, match='without end'):
        read_tensors(path)
    node = [{}]
    for _ in range(60):
        node = [node, node]
    path.write_bytes(pickle.dumps(node))
    with pytest.raises(UserError, match='without end'):
        read_tensors(path)


@pytest.mark.parametrize(
    'name, content, reason',
    [
        ('weights.txt', b'hello, this is text', 'no weights file that is known'),
        ('weights.pkl', pickle.dumps({'a': 1}), 'holds no tensors'),
        ('weights.pt', b'PK\x03\x04', 'truncated or damaged'),
    ],
)
def test_what_is_no_weights_file(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=reason):
        read_tensors(tmp_path / name)
    with pytest.raises(UserError, match='no weights file'):
        read_tensors(tmp_path / 'nowhere.pt')
