"""The papers' networks: their own numbers, sizes, precision, rematerialisation, labels, magnitudes."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cm_jax import models
from cm_jax.core import tree
from cm_jax.core.precond import edm_scalings, precondition
from cm_jax.errors import UserError
from cm_jax.models import edm2_unet, layers, unet
from cm_jax.models.presets import PRESETS
from cm_jax.weights import names

SHAPE = (8, 8, 3)
SIZES = {'channels': 16, 'channel_mult': (1, 2), 'num_blocks': 1, 'attn_resolutions': (4,)}
NCSNPP = {'embedding': 'fourier', 'encoder': 'residual', 'resample_filter': (1, 3, 3, 1)}
HEADS = {'channels_per_head': 16}
SMALL = {
    'ddpmpp': {'name': 'song_unet', **SIZES},
    'ncsnpp': {'name': 'song_unet', **SIZES, **NCSNPP, 'channel_mult_noise': 2},
    'adm': {'name': 'adm_unet', **SIZES, **HEADS},
    'edm2': {'name': 'edm2_unet', **SIZES, **HEADS},
}
LAYOUT = {'ddpmpp': 'edm', 'ncsnpp': 'edm', 'adm': 'edm', 'edm2': 'edm2'}
NETWORKS = pytest.mark.parametrize('network', SMALL)


def relative_error(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@functools.cache
def weights(network, num_classes=0, **settings):
    """Weights that are not near 0, as the initial ones are; kernels keep the magnitude."""
    model = models.build(SMALL[network] | settings, SHAPE, num_classes)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        kernel = path[-1].key == 'kernel'
        size = np.prod(leaf.shape[:-1]) ** -0.5 if kernel else 0.2
        return jnp.float32((path[-1].key == 'scale') + size * rng.standard_normal(leaf.shape))

    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def jitted(network, num_classes=0, **settings):
    return jax.jit(models.build(SMALL[network] | settings, SHAPE, num_classes).net)


def is_fixed(path):
    return path[-1].startswith(tree.FIXED)


def inputs(batch=3):
    x = jax.random.normal(jax.random.key(2), (batch, *SHAPE))
    return x, jnp.linspace(-1.5, 1.0, batch)[:, None]


# The papers' own numbers


class Official(NamedTuple):
    """A fixture in our terms: the network and what its own code made of the inputs, NHWC."""

    settings: dict[str, Any]
    image_shape: tuple[int, int, int]
    num_classes: int
    layout: str
    state: dict[str, np.ndarray]
    arrays: dict[str, np.ndarray]


SAME = ('channel_mult', 'num_blocks', 'attn_resolutions', 'resample_filter', 'channel_mult_noise')
SAME = (*SAME, 'channels_per_head', 'logvar_channels', 'augment_dim')
RENAMED = {'model_channels': 'channels', 'embedding_type': 'embedding', 'encoder_type': 'encoder'}
CLASSES = {'SongUNet': 'song_unet', 'DhariwalUNet': 'adm_unet', None: 'edm2_unet'}


def official_of(recorded):
    arrays, config = recorded
    ours = {key: key for key in SAME} | RENAMED
    settings = {ours[key]: value for key, value in config.items() if key in ours}
    network = CLASSES[config.get('model_type')]
    if network == 'adm_unet':
        del settings['resample_filter' if 'resample_filter' in settings else 'augment_dim']
    state = {k.removeprefix('param/'): v for k, v in arrays.items() if k.startswith('param/')}
    shape = (config['img_resolution'],) * 2 + (config['img_channels'],)
    layout = 'edm2' if network == 'edm2_unet' else 'edm'
    given = {'name': network, **settings}
    return Official(given, shape, config['label_dim'], layout, state, arrays)


def by_rule(config):
    """The weights of the OpenAI fixture, by the rule that its config gives."""
    state = {}
    for j, (name, shape) in enumerate(sorted(config['names'].items())):
        i = np.arange(np.prod(shape), dtype=np.float64)
        fraction = (i * i * 0.6180339887498949 + j * 0.7548776662466927) % 1.0
        offset = float(len(shape) == 1 and name.endswith('weight'))
        state[name] = ((0.35 * fraction - 0.175) + offset).astype(np.float32).reshape(shape)
    return state


def openai_of(recorded):
    arrays, config = recorded
    sizes = {'channels': 128, 'channel_mult': (1, 1), 'num_blocks': 1, 'attn_resolutions': (4,)}
    settings = {'name': 'adm_unet', **sizes, 'noise_scale': 1000.0}
    return Official(settings, (8, 8, 3), 4, 'openai', by_rule(config), arrays)


@functools.cache
def official(recorded, name):
    return (openai_of if name == OPENAI else official_of)(recorded(name))


OPENAI = 'openai_net_small'  # its weights are by a rule, not in the file
FIXTURES = ('net_ddpmpp_small', 'net_ncsnpp_small', 'net_adm_small', 'net_edm2_small', OPENAI)
OFFICIAL = pytest.mark.parametrize('name', FIXTURES)


@OFFICIAL
def test_network_is_the_official_one(recorded, name):
    fixture = official(recorded, name)
    network, arrays = fixture[:3], fixture.arrays
    params = names.to_params(fixture.state, *network, fixture.layout)
    model = models.build(*network)
    label = arrays.get('label')
    label = np.argmax(arrays['class_labels'], axis=1) if 'class_labels' in arrays else label
    augment = arrays.get('augment_labels', np.zeros((len(arrays['sigma']), 0), np.float32))

    def net(params, x, cond, label, key):
        return model.net(params, x, jnp.concatenate([cond, augment], axis=1), label, key)

    denoise = precondition(net, lambda t: edm_scalings(t, 0.5))
    x, t = arrays['x_nchw'].transpose(0, 2, 3, 1), jnp.asarray(arrays['sigma'])

    def mean_square(x):
        denoised = denoise(params, x, t, label)
        return jnp.mean(denoised**2), denoised

    gradient, denoised = jax.jit(jax.grad(mean_square, has_aux=True))(x)
    found = {'denoised_nchw': (denoised, 1e-4), 'grad_mean_sq_wrt_x_nchw': (gradient, 1e-3)}
    if 'raw_F_of_x_cnoise_nchw' in arrays:
        raw = jax.jit(net)(params, x, jnp.log(t)[:, None] / 4, label, None)
        found['raw_F_of_x_cnoise_nchw'] = (raw, 1e-4)
    for key, (ours, tolerance) in found.items():
        theirs = arrays[key].transpose(0, 2, 3, 1)
        assert relative_error(ours, theirs) < tolerance
        for one, other in zip(ours, theirs):  # the largest level would hide the others
            assert relative_error(one, other) < tolerance
    if 'logvar' in arrays:
        ours = edm2_unet.log_variance(params, jnp.log(t)[:, None] / 4)
        assert relative_error(ours, arrays['logvar']) < 1e-4


PARAMETERS = {
    'ddpmpp_cifar10': 55_733_891,
    'ddpmpp_cifar10_cond': 55_735_299,
    'ncsnpp_cifar10': 56_397_827,
    'ncsnpp_deep_cifar10': 97_610_499,
    'adm_imagenet64': 295_899_267,
    'edm2_imagenet64_s': 280_209_381,
    'edm2_imagenet64_m': 497_803_173,
    'edm2_imagenet64_l': 777_492_325,
    'edm2_imagenet64_xl': 1_119_276_837,
    'cm_imagenet64': 295_899_267,
    'cm_lsun256': 552_807_171,
}


@pytest.mark.parametrize('name', PRESETS)
def test_presets_have_the_papers_sizes(name):
    preset = PRESETS[name]
    model = models.build(preset.settings, preset.image_shape, preset.num_classes)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes))
    assert tree.count(shapes) == PARAMETERS.get(name, tree.count(shapes))


# Official names and layouts


def as_official(network):
    layout = LAYOUT[network]
    settings = SMALL[network] | ({} if layout == 'edm2' else {'augment_dim': 2})
    return settings, (layout,), weights(network, 5, **settings)


@NETWORKS
def test_round_trip_of_names_is_bit_identical(network):
    settings, layouts, params = as_official(network)
    for layout in (*layouts, *(('openai',) if network == 'adm' else ())):
        if layout == 'openai':
            settings, params = SMALL[network], weights(network, 5)
        state = names.to_state(params, settings, SHAPE, 5, layout)
        assert names.layout_of(state) == layout
        again = names.to_params(state, settings, SHAPE, 5, layout)
        assert jax.tree.structure(again) == jax.tree.structure(params)
        jax.tree.map(np.testing.assert_array_equal, again, params)


@OFFICIAL
def test_export_is_the_official_state_dict(recorded, name):
    settings, shape, classes, layout, state, _ = official(recorded, name)
    params = names.to_params(state, settings, shape, classes, layout)
    found = names.to_state(params, settings, shape, classes, layout)
    assert found.keys() == state.keys()
    for key, value in state.items():
        assert found[key].dtype == np.float32
        np.testing.assert_array_equal(found[key], value)
        assert found[key].shape == value.shape


def test_half_precision_weights_are_read_as_float32():
    settings, (layout,), params = as_official('edm2')
    state = names.to_state(params, settings, SHAPE, 5, layout)
    half = {name: value.astype(np.float16) for name, value in state.items()}
    again = names.to_params(half, settings, SHAPE, 5, layout)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(again))
    np.testing.assert_allclose(again['out_gain'], params['out_gain'], rtol=1e-3)


def without(state, *gone):
    return {name: value for name, value in state.items() if name not in gone}


CONV0 = 'model.enc.8x8_block0.conv0.weight'
BLOCK = [f'model.dec.8x8_in0.{part}.weight' for part in ('conv0', 'conv1', 'norm0', 'norm1')]


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda s: without(s, CONV0), f'do not fit song_unet: 1 missing: {CONV0}$'),
        (lambda s: without(s, *s), r'missing: .*, .*, .* and \d+ more$'),
        (lambda s: s | {'model.extra': s[CONV0]}, '1 unexpected: model.extra$'),
        (lambda s: s | {CONV0: s[CONV0][:, :3]}, f'{CONV0} is 16x3x3x3, not 16x16x3x3$'),
        (
            lambda s: without(s, CONV0) | {'model.a': s[CONV0], CONV0[:-6] + 'bias': s[CONV0]},
            '1 missing: .*; 1 unexpected: model.a; 1 of the wrong shape: .*bias is 16x16x3x3, not 16$',
        ),
        (
            lambda s: s | {k: v + 0.1 for k, v in s.items() if k.endswith('filter')},
            'resample_filter is not that of model.resample_filter',
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_one_line(change, message):
    settings, (layout,), params = as_official('ncsnpp')
    state = names.to_state(params, settings, SHAPE, 5, layout)
    with pytest.raises(UserError, match=message) as caught:
        names.to_params(change(state), settings, SHAPE, 5, layout)
    assert '\n' not in str(caught.value)


def test_weights_of_another_resolution_or_network_or_none_are_refused():
    settings, (layout,), params = as_official('adm')
    state = names.to_state(params, settings, SHAPE, 5, layout)
    with pytest.raises(UserError, match=r'missing: model.dec.16x16.*unexpected: .*4x4'):
        names.to_params(state, settings, (16, 16, 3), 5, layout)
    with pytest.raises(UserError, match=r'missing: .*unexpected: '):
        names.to_params(state, SMALL['ddpmpp'], SHAPE, 5, layout)
    with pytest.raises(UserError, match='legal: edm2_unet'):
        names.to_params(state, settings, SHAPE, 5, 'edm2')
    with pytest.raises(UserError, match=r'no network known here: 1 tensors: fc\.weight'):
        names.layout_of({'fc.weight': 0})
    with pytest.raises(UserError, match='not those of adm_unet'):
        names.to_state(params, SMALL['adm'] | {'num_blocks': 2}, SHAPE, 5, layout)


# Precision and memory


@NETWORKS
def test_bfloat16_output_is_float32_and_near(network):
    x, cond = inputs()
    exact = jitted(network)(weights(network), x, cond)
    found = jitted(network, dtype='bfloat16')(weights(network), x, cond)
    assert found.dtype == jnp.float32
    assert 0 < relative_error(found, exact) < 2e-2


@pytest.mark.slow
@pytest.mark.parametrize(
    'network',
    [
        'ddpmpp',
        pytest.param('edm2', marks=pytest.mark.slow),
        pytest.param('ncsnpp', marks=pytest.mark.slow),
        pytest.param('adm', marks=pytest.mark.slow),
    ],
)
def test_rematerialised_gradient_is_the_plain_one(network):
    x, cond = inputs()
    params, key = weights(network), jax.random.key(7)
    found = {}
    for remat in ((), (8, 4)):
        settings = SMALL[network] | {'dropout': 0.2, 'remat': remat}
        net = models.build(settings, SHAPE, 0).net
        loss = jax.value_and_grad(lambda p, net=net: jnp.mean(net(p, x, cond, None, key) ** 2))
        assert ('remat' in str(jax.make_jaxpr(loss)(params))) == bool(remat)
        found[remat] = jax.jit(loss)(params)
    plain, again = found.values()
    constants = {path: leaf for path, leaf in tree.flatten(plain[1]).items() if is_fixed(path)}
    assert bool(constants) == (network in ('ncsnpp', 'edm2'))
    assert not any(np.any(leaf) for leaf in constants.values())
    np.testing.assert_allclose(again[0], plain[0], rtol=1e-5)  # the same dropout masks
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(plain[1]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * scale), *(plain, again))


@pytest.mark.parametrize('network', ['adm', 'edm2'])
def test_initial_network_is_nearly_zero_and_learns(network):
    model = models.build(SMALL[network] | {'channel_mult': (1,)}, SHAPE, 0)
    params = jax.jit(model.init)(jax.random.key(0))
    x, cond = inputs()

    def loss(params):
        f = model.net(params, x, cond)
        return jnp.mean((f - x) ** 2), f

    gradient, f = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert np.abs(f).max() < 1e-2
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
    assert optax.tree.norm(gradient) > 1e-3


def test_constants_stay_and_do_not_count():
    params = weights('edm2')
    sizes = {path[-1]: leaf.size for path, leaf in tree.flatten(params).items() if is_fixed(path)}
    assert set(sizes) == {'fixed_freqs', 'fixed_phases'}
    everything = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert tree.count(params) == everything - 2 * (16 + 128)  # of level and of uncertainty
    fixed = {'/'.join(p): leaf for p, leaf in tree.flatten(params).items() if is_fixed(p)}
    optimizer = optax.radam(0.1)
    zeros = jax.tree.map(jnp.zeros_like, fixed)  # the gradient, by the test above
    updates, _ = optimizer.update(zeros, optimizer.init(fixed), fixed)
    jax.tree.map(np.testing.assert_array_equal, optax.apply_updates(fixed, updates), fixed)


# Conditioning


@pytest.mark.parametrize('network', ['ddpmpp', 'ncsnpp', 'adm'])
def test_augmentation_labels_are_read_and_none_are_zeros(network):
    settings = {'augment_dim': 4}
    net, params = jitted(network, **settings), weights(network, **settings)
    x, cond = inputs()
    zeros, ones = jnp.zeros((3, 4)), jnp.ones((3, 4))
    plain = net(params, x, cond)
    np.testing.assert_array_equal(plain, net(params, x, jnp.concatenate([cond, zeros], axis=1)))
    other = net(params, x, jnp.concatenate([cond, ones], axis=1))
    assert relative_error(other, plain) > 1e-3
    with pytest.raises(UserError, match=r'\(3, 1\) or \(3, 5\) with augm.*, got \(3, 2\)'):
        net(params, x, jnp.concatenate([cond, cond], axis=1))


@NETWORKS
def test_more_conditions_than_the_network_has_are_refused(network):
    x, cond = inputs()
    with pytest.raises(UserError, match=r'cond of shape \(3, 1\), got \(3, 2\)'):
        jitted(network)(weights(network), x, jnp.concatenate([cond, cond], axis=1))


@NETWORKS
def test_labels_matter_and_none_is_no_class(network):
    net, params = jitted(network, 3), weights(network, 3)
    x, cond = inputs()
    found = [net(params, x, cond, jnp.full(3, label)) for label in (-1, 0, 1, 2)]
    np.testing.assert_array_equal(found[0], net(params, x, cond))
    for i, one in enumerate(found):
        assert all(relative_error(one, other) > 1e-3 for other in found[:i])


def test_dropped_labels_follow_the_key_and_the_rate():
    label, key = jnp.arange(10_000) % 10, jax.random.key(0)
    np.testing.assert_array_equal(unet.drop_labels(label, 0.3, None), label)
    np.testing.assert_array_equal(unet.drop_labels(label, 0.0, key), label)
    found = unet.drop_labels(label, 0.3, key)
    np.testing.assert_array_equal(found, unet.drop_labels(label, 0.3, key))
    assert abs(np.mean(found == -1) - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 10_000)
    np.testing.assert_array_equal(found[found >= 0], label[found >= 0])


@pytest.mark.parametrize('network', ['ddpmpp', 'adm'])
def test_label_dropout_acts_in_training_only(network):
    net, params = jitted(network, 3, label_dropout=0.5), weights(network, 3)
    x, cond = inputs()
    x, cond = jnp.repeat(x[:1], 32, axis=0), jnp.repeat(cond[:1], 32, axis=0)
    label = jnp.ones(32, jnp.int32)
    with_label, without_label = net(params, x, cond, label), net(params, x, cond, None)
    found = net(params, x, cond, label, jax.random.key(3))
    dropped = [relative_error(one, other) < 1e-5 for one, other in zip(found, without_label)]
    kept = [relative_error(one, other) < 1e-5 for one, other in zip(found, with_label)]
    assert all(np.not_equal(dropped, kept)) and 4 < sum(dropped) < 28


def test_noise_scale_multiplies_the_noise_input():
    x, cond = inputs()
    params = weights('adm')
    scaled = jitted('adm', noise_scale=1000.0)(params, x, cond)
    assert relative_error(scaled, jitted('adm')(params, x, 1000.0 * cond)) < 1e-4


# Dropout


def test_edm2_drops_at_low_resolutions_only():
    """With no block at or below the largest resolution that drops, dropout changes nothing."""
    x, cond = inputs()
    params, key = weights('edm2'), jax.random.key(1)
    plain = jitted('edm2')(params, x, cond)
    for limit, drops in ((2, False), (4, True)):
        net = jitted('edm2', dropout=0.4, dropout_resolution=limit)
        np.testing.assert_allclose(net(params, x, cond), plain, atol=1e-5)
        found = net(params, x, cond, None, key)
        assert (relative_error(found, plain) > 1e-2) == drops


# CUD's skip scaling


def test_skip_scaling_is_cuds():
    """phi(0) = phi and phi(1) = 1 - phi; at phi = 1/2 nothing is scaled."""
    x, _ = inputs()
    params = weights('ddpmpp')
    t = jnp.float32([[0.0], [0.5], [1.0]])
    plain = jitted('ddpmpp')(params, x, t)
    half = jitted('ddpmpp', skip_scaling=0.5)(params, x, t)
    np.testing.assert_allclose(half, plain, atol=1e-5)
    found = jitted('ddpmpp', skip_scaling=0.75)(params, x, t)
    changed = [relative_error(one, other) > 1e-2 for one, other in zip(found, plain)]
    assert changed == [True, False, True]
    features, skip = jnp.ones((2, 1, 1, 1)), jnp.ones((2, 1, 1, 1))
    phi = 0.75 + jnp.float32([0.0, 1.0]) * (1 - 2 * 0.75)
    np.testing.assert_allclose(unet.join(features, skip, phi)[:, 0, 0], [[1.5, 0.5], [0.5, 1.5]])


# Resampling


def test_wide_filter_keeps_constants_inside_and_is_its_own_adjoint():
    rng = np.random.default_rng(0)
    taps = (1, 3, 3, 1)
    x, y = jnp.float32(rng.standard_normal((2, 8, 6, 3))), rng.standard_normal((2, 4, 3, 3))
    down, up = layers.resample(x, 'down', taps), layers.resample(jnp.float32(y), 'up', taps)
    assert down.shape == y.shape and up.shape == x.shape
    np.testing.assert_allclose(jnp.vdot(down, y), jnp.vdot(x, up) / 4, rtol=1e-4)
    ones = jnp.ones((1, 8, 8, 1))
    np.testing.assert_allclose(layers.resample(ones, 'down', taps)[:, 1:-1, 1:-1], 1, rtol=1e-6)
    np.testing.assert_allclose(layers.resample(ones, 'up', taps)[:, 1:-1, 1:-1], 1, rtol=1e-6)
    for mode in ('down', 'up'):
        narrow = layers.filter_down(x, (1, 1), 0) if mode == 'down' else layers.filter_up(x, (1, 1))
        np.testing.assert_allclose(layers.resample(x, mode), narrow, atol=1e-6)


def test_heads_attend_apart():
    rng = np.random.default_rng(0)
    q, k, v = jnp.float32(rng.standard_normal((3, 2, 5, 12)))
    whole = layers.multi_head_attention(q, k, v, 3)
    parts = [layers.attention(*(a[..., i : i + 4] for a in (q, k, v))) for i in (0, 4, 8)]
    np.testing.assert_allclose(whole, jnp.concatenate(parts, axis=-1), atol=1e-6)


# Magnitudes


def test_normalized_weights_have_unit_rows_and_leave_the_network_as_it_is():
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: 100 * leaf if path[-1].key == 'kernel' else leaf, weights('edm2', 3)
    )
    once = edm2_unet.normalize_weights(params)
    twice = edm2_unet.normalize_weights(once)
    for path, leaf in tree.flatten(once).items():
        if path[-1] == 'kernel':
            rows = np.sqrt(np.mean(np.asarray(leaf) ** 2, axis=tuple(range(leaf.ndim - 1))))
            np.testing.assert_allclose(rows, 1, atol=3e-4)
        else:
            np.testing.assert_array_equal(leaf, tree.flatten(params)[path])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=3e-4), once, twice)
    x, cond = inputs()
    net = jitted('edm2', 3)
    assert relative_error(net(once, x, cond), net(params, x, cond)) < 5e-3


def test_magnitude_preserving_operations_preserve_magnitude():
    rng = np.random.default_rng(0)
    a, b = jnp.float32(rng.standard_normal((2, 4000, 24)))
    size = lambda x: float(jnp.sqrt(jnp.mean(x**2)))  # noqa: E731
    assert abs(size(edm2_unet.mp_silu(a)) - 1) < 0.01
    assert abs(size(edm2_unet.mp_sum(a, b, 0.3)) - 1) < 0.01
    assert abs(size(edm2_unet.mp_concat(a, b[:, :8], 0.5)) - 1) < 0.01
    assert abs(size(edm2_unet.mp_concat(a, b[:, :8], 0.5)[:, 24:]) ** 2 * 8 / 32 - 0.5) < 0.01
    np.testing.assert_allclose(size(edm2_unet.unit_magnitude(9 * a, -1)), 1, atol=1e-3)
    zero = jax.grad(lambda x: jnp.sum(edm2_unet.unit_magnitude(x, -1)))(jnp.zeros((1, 4)))
    assert np.all(np.isfinite(zero))


def test_log_variance_needs_its_own_parameters_alone():
    params = weights('edm2')
    _, cond = inputs()
    own = {k: v for k, v in params.items() if k.startswith('logvar')}
    found = edm2_unet.log_variance(own, cond)
    assert found.shape == (3,) and len(np.unique(found)) == 3


# Refusals


@pytest.mark.parametrize(
    'network, settings, message',
    [
        ('ddpmpp', {'embedding': 'sine'}, "model.embedding 'sine'.*legal: fourier, positional"),
        ('ddpmpp', {'encoder': 'skip'}, "model.encoder 'skip'.*legal: residual, standard"),
        ('ddpmpp', {'resample_filter': (1, 2, 1)}, r'one of \(1, 1\), \(1, 3, 3, 1\), got'),
        ('ddpmpp', {'skip_scaling': 1.5}, r'skip_scaling must be in \[0, 1\] or None, got 1.5'),
        ('ddpmpp', {'label_dropout': 1.0}, r'label_dropout must be in \[0, 1\), got 1'),
        ('ddpmpp', {'channel_mult_noise': 0}, 'channel_mult_noise must be >= 1, got 0'),
        ('ddpmpp', {'augment_dim': -1}, 'augment_dim must be >= 0, got -1'),
        ('ddpmpp', {'remat': (16,)}, 'remat names resolution 16; this network has 8, 4'),
        ('adm', {'channels_per_head': 10}, r'32 channels cannot be split into 3 heads .* is 10'),
        ('adm', {'channels': 20, 'channels_per_head': 6}, 'channels cannot be split'),
        ('adm', {'num_blocks': 0}, 'num_blocks'),
        ('adm', {'dtype': 'float16'}, "model.dtype 'float16'.*legal: bfloat16, float32"),
        ('edm2', {'dropout': -0.1}, r'dropout must be in \[0, 1\), got -0.1'),
        ('edm2', {'label_dropout': 0.1}, 'unknown key config.model.label_dropout'),
        ('edm2', {'logvar_channels': 0}, 'logvar_channels must be >= 1, got 0'),
    ],
)
def test_wrong_settings_are_refused_with_the_legal_ones(network, settings, message):
    with pytest.raises(UserError, match=message):
        models.build(SMALL[network] | settings, SHAPE, 0)
