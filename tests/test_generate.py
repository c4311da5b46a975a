"""Generated samples: labels that go round or are drawn by index."""

import jax.numpy as jnp
import numpy as np

from cm_jax import generate, samplers, sharding
from tests.helpers.formula_model import GENERATIVE_MODEL, VE


def labels_of(policy, count=40, batch_size=7, spec='onestep', seed=3):
    """The classes that the denoiser is given."""

    def tell(params, x, t, label, key=None):
        shown = jnp.full(x.shape[:1], -1) if label is None else label
        return jnp.broadcast_to(shown[:, None, None, None], x.shape) * 1.0

    generative_model = GENERATIVE_MODEL._replace(denoise=tell)
    make = generate.make_generator(
        generative_model,
        samplers.build(spec, VE),
        sharding.make_mesh(),
        batch_size,
        lambda x0: x0[:, 0, 0, 0],
        labels=policy,
    )
    batches = [make(np.float32(1), seed, first) for first in range(0, count, batch_size)]
    return np.concatenate(batches)[:count]


def test_balanced_labels_go_round_and_uniform_ones_are_drawn_by_index():
    np.testing.assert_allclose(labels_of('balanced'), np.arange(40) % 10, atol=1e-4)
    drawn = np.round(labels_of('uniform', 3000, 1000)).astype(int)
    np.testing.assert_array_equal(np.round(labels_of('uniform')), drawn[:40])
    counts = np.bincount(drawn, minlength=10)
    assert len(counts) == 10 and len(set(counts)) > 3
    assert np.sum((counts - 300) ** 2 / 300) < 30  # chi-squared of 9 degrees of freedom
    other = np.round(labels_of('uniform', 3000, 1000, seed=4))
    assert 0.05 < np.mean(other == drawn) < 0.15


def test_guidance_still_has_no_label_where_it_takes_none():
    """D + (2 - 1) (D - none), of D = label and none = -1."""
    label = np.round(labels_of('uniform'))
    np.testing.assert_allclose(labels_of('uniform', spec='onestep+cfg2'), 2 * label + 1, atol=1e-3)
