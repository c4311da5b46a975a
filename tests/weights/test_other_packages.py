"""Files of PyTorch and of safetensors, where these are installed."""

import pickle

import ml_dtypes
import numpy as np
import pytest

from cm_jax.weights.read import read_tensors
from cm_jax.weights.write import write_safetensors
from tests.helpers.weight_files import DTYPES, same, values


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
