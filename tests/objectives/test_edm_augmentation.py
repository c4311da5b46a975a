"""Augmentation in the training of EDM: the loss, the labels, and networks that are told of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import models
from cm_jax.config import base_config
from cm_jax.core import augment as augmentation
from cm_jax.core import process
from cm_jax.core.augment import LABELS
from cm_jax.core.distance import l2
from cm_jax.core.precond import edm_scalings
from cm_jax.core.process import expand
from cm_jax.errors import UserError
from cm_jax.objectives import build as build_objective
from cm_jax.objectives import edm
from cm_jax.wiring import wire
from configs import cifar10_edm
from tests.helpers.arrays import noise_image
from tests.helpers.tiny import settings_of

augment = jax.jit(augmentation.augment)


VE = process.build('ve', 0.002, 80.0)
SMALL = {'name': 'song_unet', 'channels': 4, 'channel_mult': (1,), 'num_blocks': 1}
SMALL |= {'attn_resolutions': (), 'augment_dim': LABELS}
SHAPE = (8, 8, 1)


def batch_of(count: int) -> dict:
    image = jnp.stack([noise_image(SHAPE, seed) for seed in range(count)])
    return {'image': image, 'label': jnp.zeros(count, jnp.int32)}


def build(net, probability: float):
    return build_objective({'name': 'edm', 'sigma_data': 0.5, 'augment': probability}, net, VE)


def test_loss_is_that_of_the_augmented_image_and_the_network_is_told():
    """With F = 0, D = skip x_t: the loss in closed form from what the network is given."""
    seen = {}

    def net(params, x, cond, label=None, key=None):
        seen.update(x=x, cond=cond)
        return jnp.zeros_like(x)

    @jax.jit
    def evaluate(batch, key):
        loss, metrics = objective.loss({}, (), (), batch, key, jnp.int32(0))
        return loss, metrics['t'], dict(seen)

    objective, batch, key = build(net, 0.8), batch_of(6), jax.random.key(4)
    loss, t, given = evaluate(batch, key)
    x0, labels = augment(jax.random.fold_in(key, edm.AUGMENT), batch['image'], 0.8)
    c = edm_scalings(t, 0.5)
    np.testing.assert_allclose(given['cond'][:, 0], jnp.log(t) / 4, rtol=1e-6)
    np.testing.assert_allclose(given['cond'][:, 1:], labels, atol=1e-6)
    x0_hat = expand(c.skip / c.in_, x0) * given['x']
    np.testing.assert_allclose(loss, (1 / t**2 + 4) * l2(x0_hat, x0), rtol=1e-3)
    assert np.abs(x0 - batch['image']).max() > 0.1
    jax.eval_shape(objective.denoise, {}, batch['image'], t)
    assert seen['cond'].shape == (6, 1)


def test_gradient_reaches_the_embedding_of_every_label():
    model = models.build(SMALL, SHAPE, 0)
    objective, batch = build(model.net, 1.0), batch_of(6)

    def mean(params):
        arguments = (batch, jax.random.key(5), jnp.int32(0))
        return jnp.mean(objective.loss(params, (), (), *arguments)[0])

    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.asarray(noise_image(leaf.shape)), shapes)
    found = jax.jit(jax.grad(mean))(params)['map_augment']['kernel']
    assert found.shape[0] == LABELS and np.all(np.isfinite(found))
    assert np.all(np.any(found != 0, axis=1))


def test_augmentation_needs_a_network_that_is_told_of_it():
    config = base_config()
    config.objective.update({'sigma_data': 0.5, 'augment': 0.12})
    for network in ('song_unet', 'adm_unet', 'edm2_unet'):
        config.model = {'name': network}
        with pytest.raises(
            UserError, match=r'objective\.augment = 0\.12 .*model\.augment_dim = 9, got 0'
        ):
            wire(settings_of(config), (64, 64, 3), 0)
    config.model = {'name': 'adm_unet', 'augment_dim': LABELS}
    assert wire(settings_of(config), (64, 64, 3), 0).objective.augment_dim == LABELS
    config.model.augment_dim = 4
    with pytest.raises(UserError, match='augment_dim = 9, got 4'):
        wire(settings_of(config), (64, 64, 3), 0)
    config.objective.augment = 0.0
    assert wire(settings_of(config), (64, 64, 3), 0).objective.augment_dim == 0


@pytest.mark.parametrize('network', sorted(cifar10_edm.VARIANTS))
def test_cifar10_teachers_train_with_the_papers_augmentation(network):
    config = cifar10_edm.get_config(network)
    assert config.objective.augment == 0.12
    parts = wire(settings_of(config), (32, 32, 3), 10)
    assert parts.objective.augment_dim == parts.model.augment_dim == LABELS
