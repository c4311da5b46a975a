"""Weights of another run: whether they mean the same here, and fit."""

from cm_jax.training.transfer import weights_meaning
from tests.helpers import tiny
from tests.helpers.tiny import settings_of
from tests.helpers.two_networks import wired


def test_what_weights_mean_names_the_prior_and_no_sigma_data():
    config, _ = wired()
    found = weights_meaning(settings_of(config), (8, 8, 1))
    assert found['prior']['name'] == 'song_unet' and 'sigma_data' not in found
    assert 'dropout' not in found['prior'] and 'dropout' not in found['model']
    plain = weights_meaning(settings_of(tiny.get_config('edm')), (8, 8, 1))
    assert plain['prior'] == {} and plain['sigma_data'] == 0.5
