"""A user's slip: one line that names the bad value and the legal ones, status 2, nothing written."""

import pathlib

import pytest

from tests.helpers import commands

pytestmark = pytest.mark.devices
TINY = '--config=tests/helpers/tiny.py:ect'


@pytest.fixture(scope='module')
def trained(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp('commands') / 'run'
    commands.run('train', TINY, f'--workdir={folder}', '--config.steps=4')
    return folder


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--config.model.chanels=8'], ["'chanels'", "did you mean 'channels'", 'num_blocks']),
        (['--config.objective.name=ecm'], ["'ecm'", 'ect', 'edm']),
        (['--config.dataset.source=cifar'], ["'cifar'", 'digits', 'folder', 'tfds']),
        (['--config.dataset.split=valid'], ["'valid'", 'train', 'test', 'all']),
        (['--config.batch_size=18'], ['batch_size 18', '4 devices', '16 or 20']),
        (['--config.train.accumulate=3'], ['batch_size 16', 'accumulate 3']),
        (['--config.steps=0'], ['config.steps', '0']),
        (['--config=configs/digits_ect.py:x'], ['get_config() takes 0 positional arguments']),
        (['--config=configs/imagenet64_ect.py:zz'], ["'zz'", 'legal: l, m, s, xl']),
        (['--config.sampling.sampler=multistep@0.8,80'], ['0.8, 80', 'descend']),
        (
            ['--config.class_conditional=False', '--config.sampling.sampler=onestep+cfg2'],
            ["'onestep+cfg2'", 'no classes'],
        ),
        (['--config.sampling.ema=0.7'], ["'0.7'", '0.5, 0.9']),
        (['--config.evaluation.extractor=lenet'], ["'lenet'", 'inception', 'lenet_digits']),
        (
            ['--config.train.evaluate_every=4', '--config.evaluation.extractor=inception'],
            ['config.evaluation.weights', 'pt_inception-2015-12-05-6726825d.pth', 'https://'],
        ),
        (
            ['--config.train.evaluate_every=4', '--config.evaluation.reference=none.npz'],
            ['no file of reference statistics none.npz'],
        ),
        (['--config.process.t_min=100.0'], ['t_min=100.0', 't_max=80.0']),
        (['--config.model.channels=6'], ['model.channels', '6']),
        (['--config.init_from.workdir=nowhere/run'], ['nowhere/run is no run folder']),
        (['--nonsense=1'], ['nonsense']),
        (['nonsense'], ["'nonsense'"]),
    ],
)
def test_train_refuses(tmp_path, arguments, words):
    folder = tmp_path / 'run'
    line = commands.error('train', TINY, f'--workdir={folder}', *arguments, devices=4)
    assert all(word in line for word in words), line
    assert not folder.exists()


def test_train_without_its_flags_says_which(tmp_path):
    assert '--config=FILE is required' in commands.error('train', f'--workdir={tmp_path}/run')
    assert '--workdir=FOLDER is required' in commands.error('train', TINY)
    line = commands.error('train', '--config=configs/nothing.py', f'--workdir={tmp_path}/run')
    assert 'configs/nothing.py' in line and 'digits_ect.py' in line


def test_a_dataset_that_is_not_prepared_says_how_to_prepare_it(tmp_path):
    arguments = ['--config=configs/fashion_mnist_edm.py', f'--config.dataset.data_dir={tmp_path}']
    line = commands.error('train', *arguments, f'--workdir={tmp_path}/run')
    assert 'python -m cm_jax.prepare --dataset=fashion_mnist' in line


def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / 'thesis.txt').write_text('mine')
    line = commands.error('train', TINY, f'--workdir={tmp_path}')
    assert 'is not empty' in line
    assert [p.name for p in tmp_path.iterdir()] == ['thesis.txt']


@pytest.mark.parametrize(
    ('command', 'arguments', 'words'),
    [
        ('sample', ['--step=3'], ['no step 3', '0, 2, 4']),
        ('sample', ['--sampler=multistep@0.8,80'], ['0.8, 80', 'descend']),
        ('sample', ['--sampler=magic'], ["'magic'", 'onestep', 'heun']),
        ('sample', ['--ema=0.7'], ["'0.7'", '0.5, 0.9']),
        ('sample', ['--ema=posthoc0.02'], ['posthoc0.02', 'power0.1', 'trajectory.emas=True']),
        ('sample', ['--count=50001'], ['--count=50001', 'a whole number in [1, 50000]']),
        ('sample', ['--sampler=heun@1000000000'], ['heun@1000000000', 'at most 10,000']),
        ('sample', ['--sampler=onestep+cfg2'], ['label_dropout = 0', '--unsupported']),
        ('evaluate', ['--step=3'], ['no step 3', '0, 2, 4']),
        ('evaluate', ['--seeds=a'], ['--seeds', 'a']),
        ('evaluate', ['--straightness=8'], ['of process rf', "'ve'"]),
        ('evaluate', ['--straightness=8', '--sampler=euler@2'], ['leave --sampler out']),
        ('evaluate', ['--seeds=1,1'], ['seeds', '(1, 1)']),
        ('evaluate', ['--seeds=2147483648'], ['[0, 2147483647]', 'got 2147483648']),
        ('evaluate', ['--straightness=8', '--extractor=inception'], ['takes no --extractor']),
        ('evaluate', ['--sampler=heun@3+cfg0'], ["'heun@3+cfg0'", 'label_dropout = 0']),
        ('evaluate', ['--sampler=tuned'], ['cm_jax.tune_levels', '--step=4', "--ema=''"]),
        ('tune_levels', ['--seed=1000'], ['--seed=1000', '(1000, 1001)']),
        (
            'tune_levels',
            ['--extractor=inception'],
            ['pt_inception-2015-12-05-6726825d.pth', '--weights'],
        ),
        ('tune_levels', ['--ema=0.7'], ["'0.7'", '0.5, 0.9']),
        ('edit', ['--task=colorize'], ['3 channels', 'have 1']),
        ('edit', [], ['--task', 'colorize, inpaint, superres']),
        ('edit', ['--task=superres', '--factor=3'], ['8x8', 'got 3']),
        ('edit', ['--task=inpaint', '--mask=top'], ["'top'", 'center, left, random']),
        ('edit', ['--task=inpaint', '--levels=1,80'], ["'--levels=1,80'", 'descend']),
        ('edit', ['--task=inpaint', '--count=300'], ['--count=300', "'test' has 297"]),
        ('edit', ['--task=inpaint', '--count=2147483647'], ["'test' has 297"]),
        ('edit', ['--task=inpaint', '--split=val'], ["'val'", 'all, test, train']),
        ('check_precision', ['--step=3'], ['no step 3', '0, 2, 4']),
        ('check_precision', ['--count=100000'], ['--count=100000', '1,500 images']),
        ('sample', ['--sampler=onestep+cfg-1'], ["'onestep+cfg-1'", 'one weight >= 0']),
    ],
)
def test_a_run_that_is_asked_for_what_it_has_not(trained, command, arguments, words):
    before = sorted(trained.rglob('*'))
    line = commands.error(command, f'--workdir={trained}', *arguments)
    assert all(word in line for word in words), line
    assert sorted(trained.rglob('*')) == before


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--config.basis.start=4'], ['holds 1 of the 3 snapshots', 'at least 2']),
        (['--config.basis.workdir=nowhere'], ['nowhere is no run folder']),
        (['--config.basis.workdir=a,b,a'], ['config.basis.workdir', 'twice', 'a, b, a']),
        (['--config.budget.seed=1000'], ['search noise (seed 1000)', 'different seeds']),
        (['--config.budget.samples=30'], ['budget.samples 30', 'batch_size 20']),
        (["--config.controls.reported=('emas',)"], ['kind of model', 'ema*']),
        (['--config.search.method=cmaes'], ["'cmaes'", 'cma_es, evolution, gradient, random']),
        (['--config.budget.metric=fid'], ["'fid'", 'fd_lenet']),
        (['--config.basis.storage=tape'], ["'tape'", 'device, disk, host']),
        (['--config.basis.ema=0.3'], ["'0.3'"]),
        (['--config.evaluation.extractor=inception'], ['pt_inception-2015-12-05-6726825d.pth']),
        (
            ['--config.evaluation.extractor='],
            ['no extractor is named', 'config.evaluation.extractor'],
        ),
        (['--config.budget.sampler=multistep@1,2'], ['1, 2', 'descend']),
        (['--config.budget.sampler=onestep+cfg2'], ["'onestep+cfg2'", 'label_dropout = 0']),
    ],
)
def test_search_refuses(trained, tmp_path, arguments, words):
    folder = tmp_path / 'lcsc'
    basis = [f'--config.basis.workdir={trained}', '--config.basis.start=0']
    line = commands.error(
        'search', '--config=tests/helpers/tiny_search.py', f'--workdir={folder}', *basis, *arguments
    )
    assert all(word in line for word in words), line
    assert not folder.exists()
