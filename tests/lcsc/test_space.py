"""Groups of weights with coefficients of their own."""

import numpy as np
import pytest

from cm_jax.errors import UserError
from cm_jax.lcsc import space as spaces
from cm_jax.lcsc import storage
from tests.helpers.small_search import COEFFICIENTS, small_fitness, small_snapshots


@pytest.fixture(scope='module')
def on_device():
    return small_fitness()[0](COEFFICIENTS, 1)


def test_groups_are_checked_against_the_weights():
    params = small_snapshots()[0]
    for groups, words in (
        ('layers', "'top_level', 'leaves' or a sequence"),
        (('in', '(out'), 'no regular expression'),
        (('in',), 'found in 2 of 3 weights, such as out/b'),
        (('in', '', 'out'), "group 'out' holds no weights"),
    ):
        with pytest.raises(UserError, match=words):
            spaces.build(groups, params)


@pytest.mark.parametrize('where', storage.WHERE)
def test_groups_with_the_same_coefficients_score_as_one(where, on_device):
    space = spaces.build('top_level', small_snapshots()[0])
    fitness, _ = small_fitness(where, space=space)
    np.testing.assert_allclose(fitness(np.tile(COEFFICIENTS, 2), 1), on_device, rtol=1e-5)
    apart = np.concatenate([COEFFICIENTS, COEFFICIENTS[::-1]], axis=1)
    assert (fitness(apart, 1) != on_device).all()


def test_a_network_of_one_array_is_one_block():
    assert spaces.build('top_level', {'params': {'w': np.zeros(3)}}).patterns == ('^params/w(/|$)',)
