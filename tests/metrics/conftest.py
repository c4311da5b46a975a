"""In all tests of metrics, shapes of different rank are an error."""

import jax
import pytest


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_rank_promotion('raise'):
        yield
