"""Classifier-free guidance: the line through both predictions, and what it needs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import samplers
from cm_jax.core import precond
from cm_jax.core.guidance import autoguided, guided
from cm_jax.errors import UserError
from cm_jax.generate import build_sampler, make_generator
from cm_jax.models import unet
from cm_jax.samplers import GenerativeModel, Guide
from cm_jax.sharding import make_mesh
from tests.helpers.samplers import SHAPE, VE


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


def test_guidance_of_a_network_that_always_had_its_labels_is_refused():
    always = GenerativeModel(labelled, VE, SHAPE, 3, guidable=False)
    assert build_sampler('onestep+cfg1', always).guidance == 1
    for attempt in (
        lambda: samplers.generate(
            samplers.build('onestep+cfg2', VE), always, 1.0, 0, jnp.arange(2)
        ),
        lambda: build_sampler('onestep+cfg2', always),
    ):
        with pytest.raises(UserError, match=r"'onestep\+cfg2'.*label_dropout = 0.*--unsupported"):
            attempt()


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


def other(params, x, t, label=None, key=None):
    """Another network, of other weights."""
    return params['w'] * jnp.cos(x) + labelled(0.5, x, t, label, key)


@pytest.mark.parametrize('weight', [0.0, 0.7, 1.0, 2.1])
def test_autoguided_is_the_line_through_both_networks(weight):
    x = jax.random.normal(jax.random.key(0), (3, *SHAPE))
    t, label, key = jnp.array([0.1, 1.0, 10.0]), jnp.arange(3), jax.random.key(1)
    for given in (label, None):
        found = autoguided(labelled, other, weight)((2.0, {'w': 3.0}), x, t, given, key)
        own, worse = labelled(2.0, x, t, given, key), other({'w': 3.0}, x, t, given, key)
        np.testing.assert_allclose(found, worse + weight * (own - worse), atol=1e-5)


@pytest.mark.parametrize('labels', ['balanced', 'uniform'])
def test_autoguided_samples_lie_on_the_line_and_see_the_same_noise_and_labels(labels):
    guide = Guide(other, lambda: {'w': 3.0})
    model = GenerativeModel(labelled, VE, SHAPE, 3, guides={'runs/small,8': guide})

    def images(spec, model=model, params=2.0):
        sampler = build_sampler(spec, model)
        made = make_generator(model, sampler, make_mesh(), 6, lambda x0: x0, labels=labels)
        return made(params, 4, 0)

    own = images('onestep')
    worse = images('onestep', model._replace(denoise=other), {'w': 3.0})
    for weight in (0, 1, 2.1):
        found = images(f'onestep+auto{weight}=runs/small,8')
        np.testing.assert_allclose(found, worse + weight * (own - worse), atol=1e-4)


def test_an_autoguided_sampler_says_what_it_costs_and_needs_its_guide_opened():
    model = GenerativeModel(labelled, VE, SHAPE, 0)
    for spec, evaluations in (
        ('heun@3+auto2=a', 10),
        ('heun@3+auto1=a', 5),
        ('onestep+auto0=a,8', 2),
    ):
        sampler = samplers.build(spec, VE)
        assert sampler.evaluations == evaluations
        with pytest.raises(
            UserError, match='guided by another run, which only sample and evaluate'
        ):
            build_sampler(spec, model)
        with pytest.raises(UserError, match='guided by another run'):
            samplers.generate(sampler, model, (1.0, 1.0), 0, jnp.arange(2))
