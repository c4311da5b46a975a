"""The metric of a search, as it is written in its config."""

import pytest

from cm_jax.errors import UserError
from cm_jax.lcsc import job


@pytest.mark.parametrize(
    'text, expected',
    [
        ('', {}),
        ('kd_lenet', {'kd_lenet': 1.0}),
        ('fd_lenet+100*kd_lenet', {'fd_lenet': 1.0, 'kd_lenet': 100.0}),
        ('0.5*fid + 2*kid', {'fid': 0.5, 'kid': 2.0}),
    ],
)
def test_metrics_of_a_search(text, expected):
    assert job.parse_metric(text) == expected
    with pytest.raises(UserError, match=r'as fd_lenet\+100\*kd_lenet'):
        job.parse_metric('kd_lenet*100')
