"""The FID Inception: its recorded outputs, the resize, input rules, and files of its weights."""

import hashlib
import json
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
from tests.conftest import FIXTURES
from tests.helpers import weight_files

RESIZED = 'resized_299_every_23rd'


@pytest.fixture(scope='module')
def state(recorded):
    config = recorded('inception_fid').config
    return fixtures.made_up(config['shapes'], fixtures.read_rule(config['weights']))


def test_outputs_are_those_recorded():
    found = {d.name: d for d in fixtures.check(FIXTURES / 'inception_fid.npz')}
    keys = (*fixtures.OUTPUTS, RESIZED)
    assert found.keys() == {f'{size}/{key}' for size in (32, 64) for key in keys}
    for one in found.values():
        assert one.tolerance == (1e-5 if one.name.endswith(RESIZED) else 1e-4)
        assert one.error < one.tolerance, one


def numpy_pooled(x, kind):
    """[B,H,W,C]: 3x3 of stride 1 that keep the size, or a maximum of stride 2 that does not."""
    side = 1 if kind == 'halve' else 0
    fill = 0.0 if kind == 'average' else -np.inf
    pad = ((0, 0), (1 - side, 1 - side), (1 - side, 1 - side), (0, 0))

    def windows(x, fill):
        padded = np.pad(x, pad, constant_values=fill)
        return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))

    if kind == 'average':
        return windows(x, 0.0).sum((-2, -1)) / windows(np.ones_like(x), 0.0).sum((-2, -1))
    found = windows(x, fill).max((-2, -1))
    return found[:, ::2, ::2] if kind == 'halve' else found


def numpy_conv(x, state, name, stride=1, padding=(0, 0)):
    """The convolution, batch normalisation and relu of a layer, unfolded, in float64."""
    kernel = np.float64(state[f'{name}.conv.weight'])
    x = np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], axis=(1, 2))
    x = np.tensordot(windows[:, ::stride, ::stride], kernel, ((3, 4, 5), (1, 2, 3)))
    scale, shift, mean, var = (np.float64(state[f'{name}.bn.{p}']) for p in files.NORM)
    return np.maximum((x - mean) / np.sqrt(var + 1e-3) * scale + shift, 0)


def numpy_stem(state, x):
    """Resized bytes [B,299,299,3] -> the features of 64 and 192 numbers."""
    x = numpy_conv((x - 128) / 128, state, 'Conv2d_1a_3x3', 2)
    x = numpy_conv(x, state, 'Conv2d_2a_3x3')
    x = numpy_pooled(numpy_conv(x, state, 'Conv2d_2b_3x3', padding=(1, 1)), 'halve')
    first = x.mean((1, 2))
    x = numpy_conv(numpy_conv(x, state, 'Conv2d_3b_1x1'), state, 'Conv2d_4a_3x3')
    return first, numpy_pooled(x, 'halve').mean((1, 2))


@pytest.mark.slow
def test_another_fixture_of_the_form_is_followed(recorded, tmp_path):
    """Other weights, numbers of the rule, image sizes and pixels of the resize: the stem in NumPy."""
    config = recorded('inception_fid').config
    rule = config['weights'].replace('[61,', '[907,').replace('0.2|n|', '0.5|n|')
    rule = rule.replace('1+0.1n', '0.9+0.3n').replace('sqrt(2/', 'sqrt(1.5/')
    found = fixtures.read_rule(rule.replace('0.1n', '0.2n'))
    assert found == ((907,), (1.0, 0.5), (0.9, 0.3), (1.5,), (0.2,))
    state = fixtures.made_up(config['shapes'], found)
    config['weights'] = rule.replace('0.1n', '0.2n')
    arrays = {'config_json': np.array(json.dumps(config))}
    rng = np.random.default_rng(0)
    for name, (height, width) in {'17': (17, 17), '40x9': (40, 9)}.items():
        images = rng.integers(0, 256, (1, 3, height, width), np.uint8)
        resized = numpy_resize(images.transpose(0, 2, 3, 1).astype(np.float64))
        x = jnp.asarray(images.transpose(0, 2, 3, 1) / np.float32(127.5) - 1)
        outputs = dict(jax.jit(inception.outputs)(files.to_params(state), x))
        outputs['64'], outputs['192'] = numpy_stem(state, resized)
        outputs['resized_299_every_31st'] = resized[:, ::31, ::31].transpose(0, 3, 1, 2)
        outputs['images_uint8_nchw'] = images
        arrays |= {f'{name}/{key}': np.asarray(value) for key, value in outputs.items()}
    np.savez(tmp_path / 'other.npz', **arrays)
    differences = fixtures.check(tmp_path / 'other.npz')
    assert len(differences) == 2 * 7 and all(d.error < d.tolerance for d in differences), (
        differences
    )
    config['weights'] = config['weights'].replace('[907,', '[908,')
    np.savez(tmp_path / 'other.npz', **arrays | {'config_json': np.array(json.dumps(config))})
    assert max(d.error for d in fixtures.check(tmp_path / 'other.npz')) > 0.01
    without = {k: v for k, v in arrays.items() if 'resized' not in k}
    for changed, message in (
        (without, r'it has no 17/resized_299_every_<n>th'),
        (
            arrays | {'17/pool': np.zeros(1)},
            r'has 17/pool, which nothing here gives; legal: .*2048',
        ),
    ):
        np.savez(tmp_path / 'other.npz', **changed)
        with pytest.raises(UserError, match=message):
            fixtures.check(tmp_path / 'other.npz')


def test_a_fixture_with_an_unknown_rule_is_refused(recorded, tmp_path):
    config = recorded('inception_fid').config
    images = np.zeros((1, 3, 8, 8), np.uint8)
    for changes, message in (
        ({'weights': 'all ones'}, 'does not tell seed'),
        ({'weights': config['weights'].replace('0.1n', 'x n')}, 'does not tell scale'),
        ({'shapes': None}, 'no shapes or no weights'),
    ):
        text = np.array(json.dumps(config | changes))
        np.savez(tmp_path / 'f.npz', config_json=text, **{'8/images_uint8_nchw': images})
        with pytest.raises(UserError, match=message):
            fixtures.check(tmp_path / 'f.npz')


# The resize


def numpy_resize(x):
    """Tap by tap: output i is at i size / 299, rounded to float32 as there."""
    for axis in (1, 2):
        size = x.shape[axis]
        at = (np.arange(299, dtype=np.float32) * np.float32(size / 299)).astype(np.float64)
        low = np.floor(at).astype(int)
        weight = np.expand_dims(at - low, [a for a in range(x.ndim) if a != axis])
        low, high = (np.minimum(i, size - 1) for i in (low, low + 1))
        x = x.take(low, axis) * (1 - weight) + x.take(high, axis) * weight
    return x


@pytest.mark.parametrize('shape', [(32, 32, 3), (7, 51, 1), (310, 601, 1)])
def test_resize_is_that_of_tensorflow_1(shape):
    x = np.random.default_rng(0).uniform(0, 255, (2, *shape))
    np.testing.assert_allclose(inception.resize(x), numpy_resize(x), rtol=0, atol=255 * 1e-5)


def test_resize_of_299_is_the_identity_and_of_a_constant_a_constant():
    x = jax.random.uniform(jax.random.key(0), (1, 299, 299, 1), maxval=255)
    np.testing.assert_array_equal(inception.resize(x), x)
    constant = inception.resize(jnp.full((1, 5, 64, 3), 200.0))
    np.testing.assert_allclose(constant, 200, rtol=1e-6)


# The input


def test_input_is_of_bytes_and_grey_is_three_channels():
    ends = jnp.stack([jnp.full((4, 4, 1), value) for value in (-1.0, 1.0)])
    found = inception.to_input(ends)
    assert found.shape == (2, 299, 299, 3) and found.dtype == jnp.float32
    np.testing.assert_allclose(found[0], -1, atol=1e-6)
    np.testing.assert_allclose(found[1], 127 / 128, atol=1e-6)
    grey = jax.random.uniform(jax.random.key(0), (1, 8, 8, 1), minval=-1)
    found, tiled = (inception.to_input(x) for x in (grey, jnp.tile(grey, (1, 1, 1, 3))))
    np.testing.assert_allclose(found, tiled, atol=1e-6)


def test_other_channels_are_refused():
    with pytest.raises(UserError, match='images with 4 channels; legal: 1, 3'):
        inception.to_input(jnp.zeros((1, 8, 8, 4)))


def test_average_leaves_out_the_padding_and_a_maximum_keeps_the_size():
    x = np.random.default_rng(0).normal(size=(1, 4, 5, 2)).astype(np.float32)
    found, top = (inception.pooled(inception.Pool(kind), x) for kind in ('average', 'max'))
    assert found.shape == top.shape == x.shape
    for y in range(4):
        for column in range(5):
            window = x[:, max(y - 1, 0) : y + 2, max(column - 1, 0) : column + 2]
            np.testing.assert_allclose(found[:, y, column], window.mean((1, 2)), rtol=1e-5)
            np.testing.assert_array_equal(top[:, y, column], window.max((1, 2)))


def test_program_is_float32_and_has_no_weights_in_it():
    x = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.bfloat16)
    program = jax.jit(inception.features).lower(inception.shapes(), x)
    assert program.out_info.shape == (1, 2048) and program.out_info.dtype == jnp.float32
    lines = [line for line in program.as_text().splitlines() if 'stablehlo.convolution' in line]
    assert len(lines) == 94 and all('HIGHEST' in line for line in lines)
    assert len(program.as_text()) < 1_000_000


# Batch normalisation and files


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
    few = data.open_source('digits', 'train')._replace(count=12)
    reference = scores.reference(few, extractor, 6, keep=True)
    process = processes.variance_exploding()

    def denoise(params, x, t, label, key=None):
        return params * jnp.tanh(x)

    generative_model = GenerativeModel(denoise, process, (8, 8, 1), 10)
    mesh = sharding.make_mesh()
    scorer = scores.Scorer(
        generative_model, extractor, reference, 6, mesh, ['fid', 'kid', 'is', 'pr']
    )
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
