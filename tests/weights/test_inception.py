"""The files of the Inception: folded normalisation, what is refused, and scores with it."""

import dataclasses
import hashlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import data, samplers, sharding
from cm_jax.core import process as processes
from cm_jax.errors import UserError
from cm_jax.evaluation import scores
from cm_jax.metrics import moments, named
from cm_jax.metrics.features import round_uint8
from cm_jax.metrics.frechet import frechet_distance
from cm_jax.metrics.inception_score import inception_score
from cm_jax.models import inception
from cm_jax.samplers import GenerativeModel
from cm_jax.weights import fixtures
from cm_jax.weights import inception as files
from tests.helpers import weight_files


@pytest.fixture(scope='module')
def state(recorded):
    config = recorded('inception_fid').config
    return fixtures.made_up(config['shapes'], fixtures.read_rule(config['weights']))


def test_folded_normalisation_is_the_normalisation():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(4, 3, 1, 5))
    scale, shift, mean = rng.normal(size=(3, 4))
    var, x = rng.uniform(0.01, 2, 4), rng.normal(size=(1, 6, 5, 3))
    ours, bias = files.folded(kernel, scale, shift, mean, var)
    dims = ('NHWC', 'HWIO', 'NHWC')
    plain, folded = (
        jax.lax.conv_general_dilated(x, k, (1, 1), 'SAME', dimension_numbers=dims)
        for k in (kernel.transpose(2, 3, 1, 0), ours)
    )
    wanted = scale * (np.asarray(plain) - mean) / np.sqrt(var + 1e-3) + shift
    np.testing.assert_allclose(np.asarray(folded) + bias, wanted, rtol=1e-4, atol=1e-5)


def write(path, state):
    if path.suffix == '.npz':
        np.savez(path, **state)
    else:
        root = {name: weight_files.tensor(value) for name, value in state.items()}
        path.write_bytes(weight_files.WRITERS[path.suffix](root))
    return path


def test_files_of_torch_give_the_params_of_the_state(state, tmp_path):
    counted = state | {'Conv2d_1a_3x3.bn.num_batches_tracked': np.array(0)}
    path = write(tmp_path / 'weights-inception-2015-12-05-6726825d.pth', counted)
    extractor = files.load(path)
    assert (extractor.name, extractor.score, extractor.dim) == ('inception', 'fid', 2048)
    assert extractor.checksum == hashlib.sha256(path.read_bytes()).hexdigest()
    shapes = jax.tree.map(lambda leaf: leaf.shape, inception.shapes())
    assert jax.tree.map(np.shape, extractor.params) == shapes
    jax.tree.map(np.testing.assert_array_equal, extractor.params, files.to_params(state))
    found = np.random.default_rng(0).uniform(size=(2, 2048)).astype(np.float32)
    np.testing.assert_allclose(
        extractor.logits(extractor.params, found),
        found.astype(np.float64) @ state['fc.weight'].T,
        atol=1e-4,
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused('is truncated or damaged', path)


def refused(message, path):
    with pytest.raises(UserError, match=message) as raised:
        files.load(path)
    assert '\n' not in str(raised.value)


def test_wrong_files_are_refused(tmp_path):
    refused('no weights file .*none.pth', tmp_path / 'none.pth')
    refused(f'no weights file {pathlib.Path.home()}/cm_jax_none.pth', '~/cm_jax_none.pth')
    refused(r"'inception' needs the file of its weights .*, got ''", '')
    other = write(tmp_path / 'other.npz', {'features.0.weight': np.zeros((64, 3, 3, 3))})
    refused('other.npz: the weights do not fit the FID Inception: .* missing: Conv2d', other)


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'fc.bias': None}, '1 missing: fc.bias'),
        ({'fc.weight': np.zeros((1000, 2048))}, 'fc.weight is 1000x2048, not 1008x2048'),
        ({'AuxLogits.fc.bias': np.zeros(1000)}, '1 unexpected: AuxLogits.fc.bias'),
        ({'Mixed_7b.branch_pool.bn.bias': np.full(192, np.nan)}, 'has values that are not finite'),
        (
            {'Conv2d_1a_3x3.bn.running_var': np.full(32, -0.5)},
            'running_var has the value -0.5; variances are >= 0',
        ),
    ],
)
def test_wrong_tensors_are_named(state, changes, message):
    changed = {name: value for name, value in (state | changes).items() if value is not None}
    with pytest.raises(UserError, match=message):
        files.to_params(changed)


@pytest.mark.slow
def test_scores_with_the_inception(state, tmp_path):
    """A 'network' that is a formula, scored against 12 digits: all are finite, two by hand."""
    extractor = files.load(write(tmp_path / 'inception.npz', state))
    few = dataclasses.replace(data.open_source('digits', 'train'), count=12)
    reference = scores.reference(few, extractor, 6, keep=True)
    process = processes.variance_exploding()

    def denoise(params, x, t, label, key=None):
        return params * jnp.tanh(x)

    generative_model = GenerativeModel(denoise, process, (8, 8, 1), 10)
    mesh = sharding.make_mesh()
    space = scores.FeatureSpace(extractor, reference, ('fid', 'kid', 'is', 'pr'))
    scorer = scores.Scorer(generative_model, [space], 6, mesh)
    row = scorer.score(np.float32(0.9), 'onestep', 12, (3,), ema='', step=0)
    assert row['protocol']['score'] == 'fid_12' and row['protocol']['rank_deficient']
    assert np.isfinite([row[name] for name in ('fid', 'kid', 'is', *named.PARTS)]).all()
    x0 = scores.make_generator(
        generative_model, samplers.build('onestep', process), mesh, 12, round_uint8
    )(np.float32(0.9), 3, 0)
    found = np.asarray(jax.jit(extractor.apply)(extractor.params, x0))
    by_hand = frechet_distance(moments.of(reference.features), moments.of(found))
    np.testing.assert_allclose(row['fid'], by_hand, rtol=1e-3)
    logits = found @ state['fc.weight'].T
    np.testing.assert_allclose(row['is'], inception_score(logits, 10).mean, rtol=1e-4)
