"""OpenAI's networks in flax (consistency models on CIFAR-10): ours with their weights does the same."""

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax import models
from cm_jax.core.precond import boundary_scalings, edm_scalings, precondition
from cm_jax.weights import names
from tests.helpers.networks import NCSNPP, relative_error
from tests.helpers.official import by_rule

SIZES = {'channels': 16, 'channel_mult': (1, 2), 'num_blocks': 2, 'attn_resolutions': (4,)}
KINDS = {
    'ncsnpp': {'name': 'song_unet', **SIZES, **NCSNPP, 'channel_mult_noise': 2},
    'ddpmpp': {'name': 'song_unet', **SIZES},
}
SHAPE = (8, 8, 3)


def test_the_networks_of_jcm_are_ours(recorded):
    arrays, config = recorded('jcm_net_small')
    x, t = arrays['x'], jnp.asarray(arrays['sigma'])
    for kind, settings in KINDS.items():
        state = by_rule(config[kind]['names'])
        params = names.to_params(state, settings, SHAPE, 0, 'jcm')
        net = jax.jit(models.build(settings, SHAPE, 0).net)
        found = {
            'raw': net(params, x, jnp.log(t)[:, None] / 4),
            'denoised': precondition(net, lambda t: edm_scalings(t, 0.5))(params, x, t),
            'distilled': precondition(net, lambda t: boundary_scalings(t, 0.5, 0.002))(
                params, x, t
            ),
        }
        for name, ours in jax.device_get(found).items():
            for one, other in zip(ours, arrays[f'{kind}/{name}']):
                assert relative_error(one, other) < 1e-4, (kind, name)
        again = names.to_state(params, settings, SHAPE, 0, 'jcm')
        assert again.keys() == state.keys()
        for name, value in state.items():
            np.testing.assert_array_equal(again[name], value, err_msg=name)
