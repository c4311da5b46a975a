"""Samplers: their spelling, what they cost, and samples that depend on (seed, index) alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import samplers
from cm_jax.core import noise, precond, process
from cm_jax.core.guidance import guided
from cm_jax.errors import UserError
from cm_jax.generate import build_sampler
from cm_jax.models import unet
from cm_jax.samplers import GenerativeModel

VE = process.build('ve', 0.002, 80.0)
RF = process.build('rf', 1e-3, 1.0)
SHAPE = (4, 4, 2)
SPECS = (
    'onestep',
    'multistep@80,0.8',
    'multistep@80,10,1,0.002',
    'euler@7',
    'ddim@8',
    'heun@1',
    'heun@18',
    'adams2@1',
    'adams2@9',
    'adams3@1',
    'adams3@2',
    'adams3@9',
    'cud3@3',
    'cud3@9',
    'dpm1@9',
    'dpm2@9,karras',
    'dpm3@1',
    'dpm3@2',
    'dpm3@9',
    'dpm3@9,lower_order_final',
    'dpm3@15,karras,lower_order_final',
)


LEGAL = 'legal: adams2, adams3, cud3, ddim, dpm1, dpm2, dpm3, euler, heun, multistep, onestep'


def home(spec):
    """A process that a sampler is defined on."""
    return RF if spec.startswith('cud3') else VE


def test_every_sampler_is_in_the_table():
    assert {spec.partition('@')[0] for spec in SPECS} == set(samplers.names())


@pytest.mark.parametrize('spec', (*SPECS, 'heun@3+cfg1', 'heun@3+cfg1.5', 'onestep+cfg0'))
def test_evaluations_are_those_that_it_spends(spec):
    calls = []

    def denoise(params, x, t, label, key=None):
        jax.debug.callback(lambda: calls.append(1))
        return x / (1 + t[:, None, None, None])

    p = home(spec)
    sampler = samplers.build(spec, p)
    jax.block_until_ready(
        samplers.generate(sampler, GenerativeModel(denoise, p, SHAPE, 3), (), 0, jnp.arange(2))
    )
    jax.effects_barrier()
    assert len(calls) == sampler.evaluations


def test_heun_18_is_edms_35_evaluations():
    assert samplers.build('heun@18', VE).evaluations == 35


@pytest.mark.parametrize('spec', SPECS)
def test_levels_descend_from_t_max_to_t_min_at_the_lowest(spec):
    p = home(spec)
    sampler = samplers.build(spec, p)
    assert sampler.spec == spec
    assert sampler.levels[0] == pytest.approx(p.t_max)
    assert np.all(np.diff(sampler.levels) < 0)
    assert all(level == 0 or level >= p.t_min * (1 - 1e-6) for level in sampler.levels)


@pytest.mark.parametrize('n', [1, 2, 3, 8, 35, 512])
@pytest.mark.parametrize('p', [VE, RF], ids=['ve', 'rf'])
def test_ddim_levels_are_every_second_one_of_twice_as_many(n, p):
    coarse, fine = (samplers.build(f'ddim@{m}', p).levels for m in (n, 2 * n))
    assert coarse == fine[::2]


def test_ddim_levels_are_edms_curve_at_even_parts():
    i = np.arange(6)
    expected = (80 ** (1 / 7) + i / 6 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(samplers.build('ddim@6', VE).levels, [*expected, 0], rtol=1e-6)


@pytest.mark.parametrize('name', ['euler', 'heun', 'adams2', 'adams3', 'cud3'])
@pytest.mark.parametrize('n', [3, 8, 10])
def test_steps_of_a_rectified_flow_are_equal(name, n):
    p = process.build('rf', 1e-5, 0.9)
    expected = 0.9 * np.arange(n, -1, -1) / n
    np.testing.assert_allclose(samplers.build(f'{name}@{n}', p).levels, expected, atol=1e-15)


def test_a_rectified_flow_has_no_steps_that_start_below_t_min():
    assert samplers.build('euler@1000', RF).levels[-2] == pytest.approx(RF.t_min)
    with pytest.raises(
        UserError, match=r'1001 equal steps .* t_min = 0\.001 before 0: at most 1,000'
    ):
        samplers.build('euler@1001', RF)


@pytest.mark.parametrize('p', [VE, RF._replace(t_max=0.99)], ids=['ve', 'rf'])
def test_logsnr_levels_have_equal_steps_of_the_log_signal_to_noise_ratio(p):
    levels = np.array(samplers.build('dpm3@9,logsnr', p).levels)
    assert levels[[0, -1]].tolist() == [p.t_max, p.t_min]
    signal = 1 - levels if p.name == 'rf' else 1
    steps = np.diff(np.log(signal / levels))
    np.testing.assert_allclose(steps, steps[0], rtol=1e-9)


def test_karras_levels_are_edms_grid_and_equal_steps_on_rectified_flow():
    found = samplers.build('dpm3@9,karras', VE).levels
    np.testing.assert_allclose(found, noise.karras_sigmas(10, 0.002, 80.0))
    np.testing.assert_allclose(samplers.build('dpm3@9', RF).levels, np.linspace(1, 1e-3, 10))
    assert samplers.build('dpm3@9', VE).levels == samplers.build('dpm3@9,logsnr', VE).levels


def test_logsnr_needs_a_signal_at_t_max():
    with pytest.raises(UserError, match=r't_max = 1 is 0.*write karras'):
        samplers.build('dpm3@9,logsnr', RF)


@pytest.mark.parametrize('name', ['euler', 'ddim', 'heun', 'adams2', 'adams3'])
def test_ode_samplers_keep_to_any_legal_process(name):
    legal = [('ve', low, high) for low in (1e-5, 1e-4, 0.02) for high in (10.0, 20.0, 80.0, 157.0)]
    legal += [('rf', low, high) for low in (1e-5, 1e-4, 0.02) for high in (0.99, 0.999, 1.0)]
    for p in (process.build(*one) for one in legal):
        for n in (1, 2, 18, 40):
            levels = samplers.build(f'{name}@{n}', p).levels
            assert len(levels) == n + 1 and levels[-1] == 0
            assert max(levels) <= p.t_max * (1 + 1e-6) and min(levels[:-1]) >= p.t_min * (1 - 1e-6)


@pytest.mark.parametrize(
    'spec, message',
    [
        ('', f"unknown sampler ''; {LEGAL}"),
        ('edit@10', f"unknown sampler 'edit'.*{LEGAL}"),
        ('onestp', r"unknown sampler 'onestp' \(did you mean 'onestep'"),
        ('onestep@3', "onestep takes no arguments, got '3'"),
        ('heun', 'write heun@n with n >= 1'),
        ('heun@', 'write heun@n with n >= 1'),
        ('heun@0', 'write heun@n with n >= 1'),
        ('heun@-3', 'write heun@n with n >= 1'),
        ('heun@x', 'write heun@n with n >= 1'),
        ('heun@2.5', 'write heun@n with n >= 1'),
        ('heun@²', 'write heun@n with n >= 1'),
        ('euler@0', 'write euler@n with n >= 1'),
        ('ddim@0', 'write ddim@n with n >= 1'),
        ('adams2@0', 'write adams2@n with n >= 1'),
        ('adams3', 'write adams3@n with n >= 1'),
        ('dpm3', 'write dpm3@n with n >= 1'),
        ('dpm3@karras', 'write dpm3@n with n >= 1'),
        ('dpm3@9,cosine', 'one of logsnr, karras and lower_order_final behind commas'),
        ('dpm2@9,logsnr,karras', 'write dpm2@n, with one of logsnr, karras'),
        ('dpm2@9,karras,karras', 'write dpm2@n, with one of logsnr, karras'),
        ('dpm_solver@9', "unknown sampler 'dpm_solver'"),
        ('cud3@8', "cud3 takes equal steps, of process rf; this one is 've': use adams3"),
        ('multistep', 'as multistep@80,0.8'),
        ('multistep@', 'as multistep@80,0.8'),
        ('multistep@80,,1', 'as multistep@80,0.8'),
        ('multistep@80;1', 'as multistep@80,0.8'),
        ('multistep@80,1,2', 'must descend strictly, got 80, 1, 2'),
        ('multistep@80,80', 'must descend strictly, got 80, 80'),
        ('multistep@80,1,1', 'must descend strictly, got 80, 1, 1'),
        ('multistep@81,1', r'must lie in \[0.002, 80\], got 81, 1'),
        ('multistep@80,0.001', r'must lie in \[0.002, 80\], got 80, 0.001'),
        ('multistep@80,0', r'must lie in \[0.002, 80\], got 80, 0'),
        ('multistep@0', r'must lie in \[0.002, 80\], got 0'),
        ('multistep@80,-1', r'must lie in \[0.002, 80\], got 80, -1'),
        ('multistep@nan', r'must lie in \[0.002, 80\], got nan'),
        ('multistep@80,nan', 'got 80, nan'),
        ('multistep@inf,1', r'must lie in \[0.002, 80\], got inf'),
        ('multistep@40,0.8', 'must start at t_max = 80, where the noise is, got 40, 0.8'),
        ('heun@18+cfg', r"guidance of 'heun@18\+cfg': write .* as heun@18\+cfg1.5"),
        ('heun@18+cfgx', 'one weight >= 0'),
        ('heun@18+cfg-1', 'one weight >= 0'),
        ('heun@18+cfgnan', 'one weight >= 0'),
        ('heun@18+cfginf', 'one weight >= 0'),
        ('heun@18+cfg2+cfg2', 'one weight >= 0'),
        ('+cfg2', "unknown sampler ''"),
        ('heun@18+head', r"head of 'heun@18\+head': write .* as heun@18\+head1"),
        ('heun@18+head0', 'its number from 1'),
        ('heun@18+head1+head1', 'its number from 1'),
        ('heun@18+cfg2+head1', 'one weight >= 0 at the end'),
        ('heun+cfg2', 'write heun@n with n >= 1'),
        ('heun@18+cg2', 'write heun@n with n >= 1'),
        ('onestep+cg2', r"unknown sampler 'onestep\+cg2' \(did you mean 'onestep'"),
        ('onestep+cfg2@3', 'one weight >= 0'),
    ],
)
def test_wrong_spec_is_one_line_with_what_is_legal(spec, message):
    with pytest.raises(UserError, match=message) as error:
        samplers.build(spec, VE)
    assert '\n' not in str(error.value)


def test_cud3_takes_three_steps_at_least():
    with pytest.raises(UserError, match='cud3@2: it takes at least 3 steps'):
        samplers.build('cud3@2', RF)


@pytest.mark.parametrize(
    'spec, of, share',
    [
        ('euler@16', 'euler_16', 1),
        ('euler@1', 'euler_1', 1),
        # That code takes its 8 steps of Heun for 15 evaluations of the length 1/15, not 1/8, at
        # times that are 1/8 apart: its path, at another speed.
        ('heun@8', 'heun_15', 8 / 15),
        ('adams2@8', 'dpm_solver_2_8', 1),
        ('cud3@8', 'dpm_solver_3_8', 1),
    ],
)
def test_samplers_of_a_velocity_are_those_of_cuds_code(recorded, spec, of, share):
    """On the field v(x, t) that its config spells."""
    arrays, config = recorded('sampler_velocity')
    assert config['model'] == 'v(x,t)=sin(2x)*(1-t/2)+0.3*x*t+0.1'

    def denoise(x, t):
        t = t[:, None, None, None]
        v = jnp.sin(2 * x) * (1 - t / 2) + 0.3 * x * t + 0.1
        return x - t * (share * v)

    with jax.enable_x64(True):
        x = jnp.asarray(arrays['x1_noise_nchw'])
        keys = jax.random.split(jax.random.key(0), len(x))
        found = samplers.build(spec, process.build('rf', 1e-5, 1.0)).sample(denoise, x, keys)
    np.testing.assert_allclose(found, arrays[f'{of}/final_nchw'], rtol=0, atol=1e-10)


# generate


def generate(spec, indices, *, p=VE, num_classes=0, seed=3):
    sampler = samplers.build(spec, p)

    def denoise(params, x, t, label):
        t = t[:, None, None, None]
        shift = 0 if label is None else label[:, None, None, None]
        return (jnp.sin(x) + shift) / (1 + t)

    def program(seed, indices):
        model = GenerativeModel(denoise, p, SHAPE, num_classes)
        return samplers.generate(sampler, model, (), seed, indices)

    return np.asarray(jax.jit(program)(seed, jnp.asarray(indices)))


@pytest.mark.parametrize('spec, num_classes', [('multistep@80,10,1', 3), ('heun@4', 0)])
def test_samples_do_not_depend_on_the_batch_size_or_order(spec, num_classes):
    whole = generate(spec, range(8), num_classes=num_classes)
    halves = [generate(spec, range(i, i + 4), num_classes=num_classes) for i in (0, 4)]
    np.testing.assert_array_equal(whole, np.concatenate(halves))
    order = [5, 2, 7, 0]
    np.testing.assert_array_equal(whole[order], generate(spec, order, num_classes=num_classes))


def test_samples_of_another_index_or_seed_differ():
    one, other = generate('multistep@80,1', range(8)), generate('multistep@80,1', range(8), seed=4)
    images = np.concatenate([one, other]).reshape(16, -1)
    assert len(np.unique(images, axis=0)) == 16
    assert len(np.unique(images)) == images.size


@pytest.mark.parametrize('p', [VE, RF], ids=['ve', 'rf'])
def test_noise_is_standard_normal_times_the_prior_std(p):
    sampler = samplers.build('onestep', p)
    model = GenerativeModel(lambda params, x, t, label: x, p, SHAPE, 0)
    seen = samplers.generate(sampler, model, (), 0, jnp.arange(1000))
    n = seen.size
    assert abs(np.mean(seen)) < 4 * p.prior_std / np.sqrt(n)
    assert abs(np.std(seen) / p.prior_std - 1) < 4 / np.sqrt(2 * n)


def test_labels_go_round_the_classes():
    sampler = samplers.build('onestep', VE)
    seen = []
    model = GenerativeModel(lambda params, x, t, label: seen.append(label) or x, VE, SHAPE, 3)
    samplers.generate(sampler, model, (), 0, jnp.array([0, 1, 2, 3, 4, 11]))
    np.testing.assert_array_equal(seen[0], [0, 1, 2, 0, 1, 2])


def test_levels_can_be_given_to_a_program_that_is_compiled_once():
    traced = []

    def denoise(x, t):
        traced.append(x.shape)
        return jnp.sin(x) / (1 + t[:, None, None, None])

    x, keys = jnp.ones((2, *SHAPE)), jax.random.split(jax.random.key(0), 2)
    sampler = samplers.build('multistep@80,1', VE)
    program = jax.jit(lambda ts: samplers.at_levels(sampler, ts).sample(denoise, x, keys))
    for level in (0.5, 3.0):
        other = samplers.build(f'multistep@80,{level}', VE)
        np.testing.assert_allclose(
            program(np.float32([80, level])), other.sample(denoise, x, keys), rtol=1e-5
        )
    once = len(traced)
    program(np.float32([80, 7]))
    assert len(traced) == once


# Guidance


def labelled(params, x, t, label=None, key=None):
    """Something that depends on all that it is given."""
    shift = 0.0 if label is None else (1 + label)[:, None, None, None]
    drop = 0.0 if key is None else jax.random.normal(key, x.shape)
    return params * jnp.sin(x + shift) / (1 + t[:, None, None, None]) + drop


@pytest.mark.parametrize('weight', [0.0, 0.7, 1.0, 3.5])
def test_guided_is_the_line_through_both_predictions(weight):
    x = jax.random.normal(jax.random.key(0), (3, *SHAPE))
    t, label, key = jnp.array([0.1, 1.0, 10.0]), jnp.arange(3), jax.random.key(1)
    found = guided(labelled, weight)(2.0, x, t, label, key)
    given, without = labelled(2.0, x, t, label, key), labelled(2.0, x, t, None, key)
    np.testing.assert_allclose(found, weight * given + (1 - weight) * without, atol=1e-5)


def test_weight_1_is_the_denoiser_itself():
    assert guided(labelled, 1.0) is labelled


def test_guidance_without_labels_is_refused_before_sampling():
    sampler = samplers.build('onestep+cfg2', VE)
    generative_model = GenerativeModel(labelled, VE, SHAPE, 0)
    for attempt in (
        lambda: guided(labelled, 2.0)(1.0, jnp.ones((1, *SHAPE)), jnp.ones(1)),
        lambda: samplers.generate(sampler, generative_model, 1.0, 0, jnp.arange(2)),
        lambda: build_sampler('onestep+cfg2', generative_model),
    ):
        with pytest.raises(UserError, match=r'labels|\+cfg2.*no classes'):
            attempt()
    assert build_sampler('onestep+cfg1', generative_model).evaluations == 1
    assert build_sampler('onestep+cfg2', generative_model._replace(num_classes=3)).evaluations == 2


class Shifted(nn.Module):
    """A network whose answer moves with the label's vector."""

    @nn.compact
    def __call__(self, x, noise, label, augment, train):
        return jnp.sin(x) + nn.Dense(x.shape[-1])(label)[:, None, None, :]


def test_guided_samples_of_a_network_lie_on_the_line_through_both():
    """With weight 0 they are those of the network without its labels, at 1 with them; in one step,
    for the same noise, the rest lies on the line through the two."""
    model = unet.as_model(Shifted(), SHAPE, 3)
    params = model.init(jax.random.key(0))
    denoise = precond.precondition(model.net, lambda t: precond.edm_scalings(t, 0.5))

    def images(spec, denoise=denoise):
        sampler = samplers.build(spec, VE)
        program = jax.jit(
            lambda params: samplers.generate(
                sampler, GenerativeModel(denoise, VE, SHAPE, 3), params, 0, jnp.arange(3)
            )
        )
        return np.asarray(program(params))

    without = images('onestep', lambda params, x, t, label: denoise(params, x, t, None))
    given = images('onestep')
    assert np.abs(given - without).max() > 1e-2
    np.testing.assert_allclose(images('onestep+cfg0'), without, atol=1e-5)
    np.testing.assert_allclose(images('onestep+cfg3'), 3 * given - 2 * without, atol=1e-4)
