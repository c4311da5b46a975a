"""Networks of several heads: side by side, and one of them samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import models, sharding
from cm_jax.core.process import expand
from cm_jax.errors import UserError
from cm_jax.generate import build_sampler, make_generator
from cm_jax.objectives import build as build_objective
from cm_jax.samplers import GenerativeModel
from tests.helpers.catch_up import build
from tests.helpers.objectives import RF, make_params


def test_heads_come_side_by_side_and_one_of_them_samples():
    image = (8, 8, 2)
    settings = {'name': 'song_unet', 'channels': 4, 'channel_mult': (1,), 'num_blocks': 1}
    one, three = (models.build(settings | {'heads': k}, image, 0) for k in (1, 3))
    params = jax.jit(three.init)(jax.random.key(0))
    params = jax.tree.map(lambda x: x + 0.1, params)
    single = {k: v for k, v in params.items() if not k.startswith('head')}
    assert jax.tree.structure(single) == jax.tree.structure(
        jax.eval_shape(one.init, jax.random.key(0))
    )
    x, t = jax.random.normal(jax.random.key(1), (2, *image)), jnp.array([0.3, 0.8])
    f = jax.jit(three.net)(params, x, t[:, None])
    assert f.shape == (2, 8, 8, 6) and f.dtype == jnp.float32
    np.testing.assert_allclose(f[..., :2], jax.jit(one.net)(single, x, t[:, None]), atol=1e-5)
    for head in (1, 2, 3):
        objective = build_objective({'name': 'catch_up', 'order': 3, 'head': head}, three.net, RF)
        x0 = objective.denoise(params, x, t)
        part = f[..., 2 * head - 2 : 2 * head]
        np.testing.assert_allclose(x0, x - expand(t, x) * part, atol=1e-5)


def test_a_sampler_names_the_head():
    """And gets, whichever head the objective samples with, that one's samples."""
    chosen = [build(2, head=head) for head in (1, 2)]
    generative_models = [GenerativeModel(o.denoise, RF, (4, 4, 2), 3, o.heads) for o in chosen]
    mesh = sharding.make_mesh()

    def images(generative_model, spec):
        sampler = build_sampler(spec, generative_model)
        return make_generator(generative_model, sampler, mesh, 5, lambda x0: x0)(
            make_params(), 0, 0
        )

    own = [images(generative_model, 'euler@3') for generative_model in generative_models]
    assert np.abs(own[0] - own[1]).max() > 0.1
    for generative_model in generative_models:
        for head in (1, 2):
            np.testing.assert_array_equal(
                images(generative_model, f'euler@3+head{head}'), own[head - 1]
            )
    both = build_sampler('euler@3+head2+cfg2', generative_models[0])
    assert (both.head, both.guidance) == (2, 2.0)
    with pytest.raises(UserError, match=r'has 2 head\(s\); legal: \+head1 to \+head2'):
        build_sampler('euler@3+head3', generative_models[0])
    with pytest.raises(UserError, match=r'has 1 head\(s\); legal: no \+head'):
        build_sampler('euler@3+head1', generative_models[0]._replace(heads=()))


def test_heads_with_one_norm_are_those_whose_norms_are_equal():
    image, x, t = (
        (8, 8, 2),
        jax.random.normal(jax.random.key(1), (2, 8, 8, 2)),
        jnp.full((2, 1), 0.4),
    )
    settings = {
        'name': 'song_unet',
        'channels': 4,
        'channel_mult': (1,),
        'num_blocks': 1,
        'heads': 2,
    }
    own, shared = (models.build(settings | {'shared_norm': on}, image, 0) for on in (False, True))
    params = jax.tree.map(lambda p: p + 0.1, jax.jit(shared.init)(jax.random.key(0)))
    kernel, bias = params['out_conv']['kernel'], params['out_conv']['bias']
    halves = [{'kernel': kernel[..., i : i + 2], 'bias': bias[i : i + 2]} for i in (0, 2)]
    split = (
        params | {'head2_norm': params['out_norm']} | dict(zip(('out_conv', 'head2_conv'), halves))
    )
    outputs = [jax.jit(m.net)(p, x, t) for m, p in ((own, split), (shared, params))]
    np.testing.assert_allclose(*outputs, atol=1e-5)
    assert jax.tree.structure(split) == jax.tree.structure(
        jax.eval_shape(own.init, jax.random.key(0))
    )
