"""The papers' networks: their own numbers and sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import models
from cm_jax.core import tree
from cm_jax.core.precond import edm_scalings, precondition
from cm_jax.models import edm2_unet
from cm_jax.models.presets import PRESETS
from cm_jax.weights import names
from tests.helpers.networks import relative_error
from tests.helpers.official import OFFICIAL, official


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
    'edm2_imagenet64_xs': 124_710_949,
    'edm2_imagenet64_s': 280_209_381,
    'edm2_imagenet64_m': 497_803_173,
    'edm2_imagenet64_l': 777_492_325,
    'edm2_imagenet64_xl': 1_119_276_837,
    'cm_imagenet64': 295_899_267,
    'cm_cifar10': 56_395_523,  # that of ncsnpp_cifar10 without the 9 x 256 of augmentation labels
    'cm_lsun256': 526_304_771,
    'cud_mnist': 2_155_201,  # 2.155201 and 55.732739 million in the configs of the paper's code
    'cud_cifar10': 55_732_739,
    'cud_imagenet64': 295_899_267,
}


@pytest.mark.parametrize('name', PRESETS)
def test_presets_have_the_papers_sizes(name):
    preset = PRESETS[name]
    model = models.build(preset.settings, preset.image_shape, preset.num_classes)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes))
    assert tree.count(shapes) == PARAMETERS.get(name, tree.count(shapes))
