"""Two networks in one run, through all the commands."""

import time

import chex
import pytest

from cm_jax.run import open_run
from cm_jax.weights.read import read_tensors
from tests.helpers import commands


def losses(folder):
    return [row['loss'] for row in open_run(folder).metrics()]


@pytest.mark.slow
@pytest.mark.devices
def test_two_networks_train_resume_sample_export_and_are_searched(tmp_path):
    config, whole, again = (
        '--config=tests/helpers/tiny.py:catch_up',
        tmp_path / 'whole',
        tmp_path / 'again',
    )
    commands.run('train', config, f'--workdir={whole}')
    process = commands.start('train', config, f'--workdir={again}')
    path, until = again / 'metrics.jsonl', time.monotonic() + 200
    while not (path.exists() and '"step": 6' in path.read_text()) and time.monotonic() < until:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    commands.run('train', config, f'--workdir={again}')
    assert losses(whole) == losses(again) and len(losses(whole)) == 12
    for step in open_run(whole).steps():
        chex.assert_trees_all_equal(open_run(whole).params(step), open_run(again).params(step))
    assert set(open_run(whole).params()) == {'net', 'prior'}
    assert {'kl', 'catch_up', 'truth'} < set(open_run(whole).metrics()[0])

    run = f'--workdir={whole}'
    assert '4 samples' in commands.run('sample', run, '--count=4', '--sampler=heun@2')
    assert 'step 12' in commands.run('evaluate', run)
    file = tmp_path / 'net.safetensors'
    commands.run('convert', 'export', run, f'--to={file}')
    tensors, metadata = read_tensors(file)
    assert metadata['process'] == 'rf' and 'sigma_data' not in metadata
    assert 'model.head2_conv.weight' in tensors and not any('prior' in name for name in tensors)
    again = ('import', f'--from={file}', '--network=ddpmpp_cifar10', f'--workdir={tmp_path}/in')
    assert 'is 4x16, not 256x512' in commands.error('convert', *again)
    search = ('--config=tests/helpers/tiny_search.py:catch_up', f'--config.basis.workdir={whole}')
    commands.run('search', *search, f'--workdir={tmp_path}/lcsc')
    found = open_run(tmp_path / 'lcsc')
    assert set(found.params()) == {'net', 'prior'}
    assert '4 samples' in commands.run('sample', f'--workdir={found.workdir}', '--count=4')
