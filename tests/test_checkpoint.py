"""Checkpoints: steps that are whole, on a full disk too, and errors that say what there is."""

import resource

import numpy as np
import pytest

from cm_jax import checkpoint
from cm_jax.errors import UserError


def test_a_save_on_a_full_disk_leaves_the_steps_before_it(tmp_path):
    tree = {'w': np.random.default_rng(0).normal(size=40_000)}
    with checkpoint.Stream(tmp_path / 'stream') as stream:
        stream.save(0, {'params': tree}, {})
        stream.wait()
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        try:
            with pytest.raises(UserError, match=r'the disk is full.*steps up to 0 are whole'):
                stream.save(1, {'params': tree}, {})
                stream.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert stream.steps() == [0]
        stream.save(1, {'params': tree}, {})
        stream.wait()
        assert stream.steps() == [0, 1]
    np.testing.assert_array_equal(checkpoint.load(tmp_path / 'stream', 1, 'params')['w'], tree['w'])
