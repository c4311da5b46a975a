"""The files of VGG-16: those that LPIPS takes, and what is refused."""

import hashlib
import pathlib
import pickle

import jax
import numpy as np
import pytest

from cm_jax.errors import UserError
from cm_jax.weights import lpips as lpips_files
from cm_jax.weights import vgg16 as files
from tests.helpers import weight_files
from tests.helpers.lpips_weights import made_up


@pytest.fixture(scope='module')
def state():
    return made_up('vgg')[0]


def test_the_file_of_torchvision_gives_the_features_of_lpips(state, tmp_path):
    classifier = {'classifier.6.bias': np.zeros(1000, np.float32)}
    root = {name: weight_files.tensor(value) for name, value in (state | classifier).items()}
    path = tmp_path / 'vgg16-397923af.pth'
    path.write_bytes(weight_files.WRITERS['.pth'](root))
    extractor = files.load(str(path))
    assert (extractor.name, extractor.score, extractor.dim) == ('vgg16', 'fd_vgg16', 512)
    assert extractor.checksum == hashlib.sha256(path.read_bytes()).hexdigest()
    assert extractor.logits is None and '32x32' in extractor.resize
    wanted = lpips_files.to_params(state, 'vgg', 'features')['features']
    jax.tree.map(np.testing.assert_array_equal, extractor.params, wanted)


def test_the_file_of_the_port_to_flax(state, tmp_path):
    kernels = [value.transpose(2, 3, 1, 0) for value in state.values() if value.ndim == 4]
    biases = [value for value in state.values() if value.ndim == 1]
    convs = {
        f'Conv_{i}': {'kernel': kernel, 'bias': bias}
        for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True))
    }
    heads = {'NetLinLayer_0': {'Conv_0': {'kernel': np.ones((1, 1, 64, 1), np.float32)}}}
    path = tmp_path / 'vgg16.ckpt'
    path.write_bytes(pickle.dumps({'VGG16_0': convs} | heads, protocol=3))
    wanted = lpips_files.to_params(state, 'vgg', 'features')['features']
    jax.tree.map(np.testing.assert_array_equal, files.load(path).params, wanted)


def refused(message, path):
    with pytest.raises(UserError, match=message) as raised:
        files.load(path)
    assert '\n' not in str(raised.value)


def test_wrong_files_are_refused(tmp_path):
    refused('no weights file .*none.pth', tmp_path / 'none.pth')
    refused(f'no weights file {pathlib.Path.home()}/cm_jax_none.pth', '~/cm_jax_none.pth')
    refused(r"'vgg16' needs the file of its weights .*, got ''", '')
    refused(r"'vgg16' needs the file of its weights .*, got None", None)
    path = tmp_path / 'cut.ckpt'
    path.write_bytes(pickle.dumps({'VGG16_0': np.zeros((9, 9))}, protocol=3)[:-20])
    refused('cut.ckpt is truncated or damaged', path)


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'features.28.bias': None}, '1 missing: features.28.bias'),
        ({'features.0.weight': np.zeros((64, 3, 5, 5))}, 'is 64x3x5x5, not 64x3x3x3'),
        ({'features.1.weight': np.zeros(64)}, '1 unexpected: features.1.weight'),
        ({'features.0.bias': np.full(64, np.nan)}, 'features.0.bias has values that are not'),
    ],
)
def test_wrong_tensors_are_named(state, tmp_path, changes, message):
    path = tmp_path / 'wrong.npz'
    changed = {name: value for name, value in (state | changes).items() if value is not None}
    np.savez(path, **changed)
    refused(f'wrong.npz: .*{message}', path)
