"""Weight files: exact values from every format, nothing that runs, one line for a damaged file."""

import os
import pickle

import ml_dtypes
import numpy as np
import pytest

from cm_jax.errors import UserError
from cm_jax.weights.read import read_tensors
from cm_jax.weights.write import write_safetensors
from tests.helpers import weight_files
from tests.helpers.weight_files import WRITERS, Storage, Tensor

DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int64, np.bool_]


def values(dtype=np.float32, shape=(2, 3, 4)):
    return np.random.default_rng(0).normal(0, 3, shape).astype(dtype)


def same(found, wanted):
    """Equal names, dtypes, shapes and bits."""
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert found[name].dtype == wanted[name].dtype and found[name].shape == wanted[name].shape
        assert found[name].tobytes() == np.ascontiguousarray(wanted[name]).tobytes(), name


# Formats


@pytest.mark.parametrize('suffix', WRITERS)
@pytest.mark.parametrize('dtype', DTYPES)
def test_every_dtype_is_read_exactly(tmp_path, suffix, dtype):
    path = tmp_path / f'weights{suffix}'
    state = {'a': {'weight': values(dtype), 'bias': values(dtype, (5,))}, 'gain': values(dtype, ())}
    tree = {'a': {k: weight_files.tensor(v) for k, v in state['a'].items()}}
    tree |= {'gain': weight_files.tensor(state['gain']), 'step': 7, 'name': 'x'}
    path.write_bytes(WRITERS[suffix](tree))
    tensors, metadata = read_tensors(path)
    a = state['a']
    same(tensors, {'a.weight': a['weight'], 'a.bias': a['bias'], 'gain': state['gain']})
    assert metadata['step'] == 7 and metadata['name'] == 'x'


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


# Nothing runs


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
        with pytest.raises(UserError, match='damaged'):
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
@pytest.mark.parametrize(
    'offset, shape, stride',
    [(0, (4, 7), (7, 1)), (-1, (2,), (1,)), (0, (2, 2), (-1, 1)), (24, (1,), (1,)), (0, (2,), ())],
)
def test_a_tensor_that_reaches_outside_its_storage(tmp_path, suffix, offset, shape, stride):
    path = tmp_path / f'weights{suffix}'
    storage = Storage(np.arange(24, dtype=np.float32))
    path.write_bytes(WRITERS[suffix]({'a': Tensor(storage, offset, shape, stride)}))
    with pytest.raises(UserError, match='damaged'):
        read_tensors(path)


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


# PyTorch itself, where it is installed


def torch_tensors(torch):
    """Tensors with strides, offsets, shared storages and every dtype that is read."""
    whole = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = {'whole': whole, 'turned': whole.t(), 'part': whole[1:, ::2], 'scalar': whole[2, 3]}
    for name in ('float64', 'float16', 'bfloat16', 'int64', 'int32', 'int16', 'int8', 'uint8'):
        tensors[name] = (whole * 5 - 11).abs().to(getattr(torch, name))
    tensors['bool'] = whole > 7
    tensors['uint16'] = whole.to(torch.uint16)
    tensors['parameter'] = torch.nn.Parameter(whole + 1)
    return tensors


@pytest.mark.parametrize('how', ['zip', 'legacy', 'pickle'])
def test_files_that_torch_writes(tmp_path, how):
    torch = pytest.importorskip('torch')
    path, tensors = tmp_path / 'weights.pt', torch_tensors(torch)
    if how == 'pickle':
        path.write_bytes(pickle.dumps(tensors))
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=how == 'zip')
    wanted = {
        name: t.detach().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        if t.dtype == torch.bfloat16
        else t.detach().numpy()
        for name, t in tensors.items()
    }
    same(read_tensors(path)[0], wanted)


def test_a_module_that_torch_writes(tmp_path):
    torch = pytest.importorskip('torch')
    path = tmp_path / 'weights.pt'
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    torch.save({'net': net, 'state': net.state_dict()}, path)
    wanted = {k: v.numpy() for k, v in net.state_dict().items()}
    both = {f'{group}.{k}': v for group in ('net', 'state') for k, v in wanted.items()}
    same(read_tensors(path)[0], both)


def test_the_safetensors_package_reads_what_is_written(tmp_path):
    library = pytest.importorskip('safetensors')
    numpy_side = pytest.importorskip('safetensors.numpy')
    path = tmp_path / 'weights.safetensors'
    tensors = {np.dtype(dtype).name: values(dtype) for dtype in DTYPES}
    write_safetensors(path, tensors, {'step': '7'})
    with library.safe_open(path, 'np') as file:
        assert file.metadata() == {'step': '7'}
    same(numpy_side.load_file(path), tensors)
    numpy_side.save_file(tensors, tmp_path / 'theirs.safetensors')
    same(read_tensors(tmp_path / 'theirs.safetensors')[0], tensors)
