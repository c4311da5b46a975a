"""Fashion-MNIST, prepared offline from Debian's package and trained on through the tfds source."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from cm_jax.run import open_run
from tests.helpers import commands

FILES = pathlib.Path('/usr/share/datasets/fashion-mnist')
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not FILES.exists(), reason="Debian's dataset-fashion-mnist is not installed"
    ),
]


def test_some_hundred_steps_lower_the_loss_without_tensorflow(tmp_path):
    assert subprocess.run(
        [sys.executable, '-c', 'import tensorflow'], capture_output=True
    ).returncode
    commands.run('prepare', '--dataset=fashion_mnist', f'--data_dir={tmp_path}/data')
    commands.run(
        'train',
        '--config=configs/fashion_mnist_edm.py',
        f'--workdir={tmp_path}/run',
        f'--config.dataset.data_dir={tmp_path}/data',
        '--config.steps=300',
        '--config.model.channels=16',
        '--config.batch_size=16',
        '--config.sampling.sampler=heun@6',
        timeout=1200,
    )
    run = open_run(tmp_path / 'run')
    losses = [row['loss'] for row in run.metrics()]
    assert run.card['count'] == 60_000 and run.card['image_shape'] == [28, 28, 1]
    assert run.steps() == [0, 300] and np.isfinite(losses).all()
    assert losses[-1] < 0.7 * losses[0]
