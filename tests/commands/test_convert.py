"""The command convert: a run folder from a weights file, and back, and fixtures checked."""

import json
import re

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from cm_jax import checkpoint, models
from cm_jax.core import ema
from cm_jax.errors import UserError
from cm_jax.models.presets import PRESETS
from cm_jax.run import open_run
from cm_jax.weights import names
from cm_jax.weights.read import read_tensors
from cm_jax.weights.write import write_safetensors
from tests.helpers import commands, tiny, weight_files
from tests.helpers.convert_tiny import preset
from tests.helpers.paths import FIXTURES
from tests.helpers.run_folders import untrained_run
from tests.helpers.weight_files import same


def convert(*arguments, status=0):
    """What `convert` with the tiny network prints; its last line of errors for status 2."""
    ended = commands.fork('convert_tiny', *arguments, package='tests.helpers')
    assert ended.status == status, ended.err[-3000:]
    assert 'Traceback' not in ended.err
    return ended.err.splitlines()[-1] if status == 2 else ended.out


def official_state(network, seed=0):
    """Random weights of a network under their official names."""
    rng = np.random.default_rng(seed)
    model = models.build(network.settings, network.image_shape, network.num_classes)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), shapes)
    return names.to_state(params, *network[:4])


def edm_file(path, state):
    """An EDM snapshot: persistent objects around the tensors, and source text that must not run."""
    source = f'import pathlib\npathlib.Path({str(path.parent / "marker")!r}).touch()\n'
    net = weight_files.module('EDMPrecond', state, source)
    path.write_bytes(weight_files.plain_pickle({'ema': net, 'dataset_kwargs': {'path': 'x'}}))


@pytest.fixture(scope='module')
def imported(tmp_path_factory):
    """(folder with an EDM file `edm.pkl` and the run folder `run` made from it, official state)."""
    folder, state = tmp_path_factory.mktemp('imported'), official_state(preset())
    edm_file(folder / 'edm.pkl', state)
    convert('import', f'--from={folder}/edm.pkl', '--network=tiny', f'--workdir={folder}/run')
    assert not (folder / 'marker').exists()
    return folder, state


def test_an_import_is_a_run_folder(imported):
    folder, state = imported
    origin = json.loads((folder / 'run' / 'origin.json').read_text())
    assert origin['file'] == 'edm.pkl' and origin['network'] == 'tiny'
    assert origin['format'] == 'pickle' and len(origin['sha256']) == 64
    params = checkpoint.load(folder / 'run' / 'trajectory', 0, 'params')
    same(names.to_state(params, *preset()[:4]), state)
    assert sorted(p.name for p in folder.iterdir()) == ['edm.pkl', 'run']


@pytest.mark.slow
def test_sample_evaluate_and_train_take_it(imported, tmp_path):
    run = imported[0] / 'run'
    out = commands.run('sample', f'--workdir={run}', '--count=4', '--sampler=heun@2', '--npz')
    assert '4 samples' in out
    options = (
        '--samples=40',
        '--sampler=onestep',
        '--seeds=1',
        '--config=tests/helpers/tiny.py:edm',
    )
    assert 'step 0' in commands.run('evaluate', f'--workdir={run}', *options)
    commands.run(
        'train',
        '--config=tests/helpers/tiny.py:ect',
        f'--workdir={tmp_path}/ect',
        f'--config.init_from.workdir={run}',
    )


def test_export_and_import_again_are_bit_identical(imported, tmp_path):
    folder, state = imported
    file = tmp_path / 'out.safetensors'
    convert('export', f'--workdir={folder}/run', f'--to={file}')
    tensors, metadata = read_tensors(file)
    same(tensors, state)
    assert metadata['sigma_data'] == '0.5' and metadata['step'] == '0' and metadata['ema'] == ''
    assert json.loads(metadata['config'])['model']['name'] == 'song_unet'
    convert('import', f'--from={file}', '--network=tiny', f'--workdir={tmp_path}/again')
    runs = (folder / 'run', tmp_path / 'again')
    loaded = [checkpoint.load(run / 'trajectory', 0, 'params') for run in runs]
    ours, again = (names.to_state(params, *preset()[:4]) for params in loaded)
    same(again, ours)
    line = convert('export', f'--workdir={folder}/run', f'--to={file}', status=2)
    assert 'is there already' in line


def test_an_exported_consistency_model_is_imported_as_one(imported, tmp_path):
    """Without a flag, though its tensors have the names of a diffusion model."""
    file, network = tmp_path / 'out.safetensors', '--network=tiny'
    first, again = tmp_path / 'first', tmp_path / 'again'
    options = (f'--from={imported[0]}/edm.pkl', '--denoiser=consistency', network)
    convert('import', *options, f'--workdir={first}')
    convert('export', f'--workdir={first}', f'--to={file}')
    out = convert('import', f'--from={file}', network, f'--workdir={again}')
    assert 'a consistency model' in out
    configs = [json.loads((run / 'config.json').read_text()) for run in (first, again)]
    assert configs[0]['objective']['boundary'] == 0.003
    for section in ('objective', 'process', 'model', 'sampling', 'evaluation'):
        assert configs[0][section] == configs[1][section], section


def without(state, name):
    return {k: v for k, v in state.items() if k != name}


BIAS = 'model.map_layer1.bias'


@pytest.mark.parametrize(
    'change, reason',
    [
        (lambda s: without(s, BIAS), f'1 missing: {BIAS}'),
        (lambda s: s | {BIAS: np.zeros(3, np.float32)}, f'{BIAS} is 3, not 16'),
        (lambda s: {k.replace('map_', 'emb_'): v for k, v in s.items()}, 'has no model.map'),
        (lambda s: {f'{p}.{k}': v for p in ('ema', 'net') for k, v in s.items()}, 'ema, net'),
    ],
)
def test_weights_that_do_not_fit_are_one_line(imported, tmp_path, change, reason):
    file = tmp_path / 'weights.safetensors'
    write_safetensors(file, change(imported[1]), {})
    options = (f'--from={file}', '--network=tiny', f'--workdir={tmp_path}/run')
    line = convert('import', *options, status=2)
    assert str(file) in line and re.search(reason, line), line
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


@pytest.mark.slow
def test_what_import_refuses(imported, tmp_path):
    folder, _ = imported
    file, run = f'--from={folder}/edm.pkl', f'--workdir={tmp_path}/run'
    whole = (folder / 'edm.pkl').read_bytes()
    (tmp_path / 'half.pkl').write_bytes(whole[: len(whole) // 2])
    for arguments, reason in [
        ((), 'import, export, check'),
        (('import', file, run, '--network=tinny'), "did you mean 'tiny'"),
        (('import', file, '--network=tiny', f'--workdir={folder}/run'), 'is there already'),
        (('import', file, run, '--network=tiny', '--ema=net'), 'ema'),
        (('import', f'--from={tmp_path}/half.pkl', run, '--network=tiny'), 'truncated or damaged'),
    ]:
        assert reason in convert(*arguments, status=2)
    assert [p.name for p in tmp_path.iterdir()] == ['half.pkl']


def test_weights_without_a_file_format_are_not_exported(tmp_path):
    config = tiny.get_config()
    config.process.update({'name': 'rf', 't_min': 1e-5, 't_max': 1.0})
    config.model.times, config.objective = 2, ConfigDict({'name': 'mean_flow'})
    run = f'--workdir={untrained_run(tmp_path / "run", config).workdir}'
    line = commands.error('convert', 'export', run, f'--to={tmp_path}/net.safetensors')
    assert "'mean_flow' have no file format here; legal: edm, pd, " in line


def test_a_folder_of_snapshots_makes_averages_of_other_widths(tmp_path):
    """Along a known path of the weights: base + share(t) change, whose averages are known too."""
    base, change = official_state(preset()), official_state(preset(), seed=1)
    share = (np.arange(1, 301) / 300) ** 2  # other widths differ by 0.05

    def average(kimg, sigma_rel):
        weight = float(ema.power_coefficients(range(1, kimg + 1), sigma_rel) @ share[:kimg])
        return {k: np.float32(v + weight * change[k]) for k, v in base.items()}

    for kimg in (100, 200, 300):
        for sigma_rel in (0.05, 0.1):
            name = f'edm2-tiny-{kimg:07d}-{sigma_rel:.3f}.pkl'
            edm_file(tmp_path / name, average(kimg, sigma_rel))
    options = ('--network=tiny', f'--workdir={tmp_path}/run')
    assert '6 averages of tiny' in convert('import', f'--from={tmp_path}', *options)
    run = open_run(tmp_path / 'run')
    assert run.steps() == [100, 200, 300] and run.emas(200) == ['power0.05', 'power0.1']
    same(names.to_state(run.params(200, 'power0.05'), *preset()[:4]), average(200, 0.05))
    for step, sigma_rel in ((300, 0.075), (200, 0.06), (300, 0.11)):
        found = names.to_state(run.params(step, f'posthoc{sigma_rel}'), *preset()[:4])
        for name, value in average(step, sigma_rel).items():
            gap = np.abs(change[name]).max()
            np.testing.assert_allclose(found[name], value, atol=2e-3 * gap, err_msg=name)
    assert run.stored(300) == ['power0.05', 'power0.1']
    with pytest.raises(UserError, match='only averages of them: power'):
        run.params(300)
    (tmp_path / 'edm2-tiny-0000400-0.100.pkl').write_bytes(b'')
    line = convert('import', f'--from={tmp_path}', options[0], f'--workdir={tmp_path}/2', status=2)
    assert 'edm2-tiny-0000400-0.100.pkl' in line
    assert not list(tmp_path.glob('2*'))


def test_check_of_fixtures(tmp_path):
    files = [FIXTURES / f'net_{name}_small.npz' for name in ('adm', 'edm2')]
    lines = commands.run('convert', 'check', *files).splitlines()
    assert len(lines) == len(files) and all(': maximum relative error ' in line for line in lines)
    with np.load(files[0]) as file:
        arrays = dict(file)
    arrays['denoised_nchw'] = arrays['denoised_nchw'] * np.float32(1.001)
    np.savez(tmp_path / 'wrong.npz', **arrays)
    out = convert('check', tmp_path / 'wrong.npz', files[0], status=1)
    assert out.count('OVER TOLERANCE in denoised_nchw') == 1 and out.count(' ok ') == 1
    arrays['param/model.more'] = arrays.pop('sigma')
    np.savez(tmp_path / 'wrong.npz', **arrays)
    assert 'has no sigma' in convert('check', tmp_path / 'wrong.npz', status=2)


@pytest.mark.slow
def test_the_cifar10_network_is_imported_sampled_and_exported(tmp_path):
    network = PRESETS['ddpmpp_cifar10']
    state = official_state(network)
    edm_file(tmp_path / 'edm.pkl', state)
    run = f'--workdir={tmp_path}/run'
    commands.run('convert', 'import', f'--from={tmp_path}/edm.pkl', '--network=ddpmpp_cifar10', run)
    assert '16 samples' in commands.run('sample', run, '--count=16', '--sampler=heun@2')
    commands.run('convert', 'export', run, f'--to={tmp_path}/out.safetensors')
    same(read_tensors(tmp_path / 'out.safetensors')[0], state)
