"""The command evaluate: the curve, images, references, devices, labels, and refusals."""

import json
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import PIL.Image
import pytest

from cm_jax import checkpoint, data, run_folder
from cm_jax.config import to_plain
from cm_jax.core import tree
from cm_jax.data import card
from cm_jax.run_folder import DATA_CARD, RAW, TRAJECTORY, item_name
from cm_jax.wiring import wire
from tests.helpers import commands, tiny
from tests.helpers.tiny import settings_of

pytestmark = pytest.mark.devices
STEPS = (0, 2, 4)


@pytest.fixture(scope='module')
def made(tmp_path_factory) -> pathlib.Path:
    """A run folder of three steps of random weights."""
    folder = tmp_path_factory.mktemp('evaluate') / 'run'
    config = tiny.get_config('ect')
    config.evaluation.update({'samples': 203, 'batch_size': 64, 'seeds': (7,)})
    source = data.open_source('digits', 'train')
    run_folder.write_config(folder, to_plain(config))
    (folder / DATA_CARD).write_text(json.dumps(card.make(source)))
    init = wire(settings_of(config), source.image_shape, source.num_classes).model.init
    shapes = tree.flatten(jax.eval_shape(init, jax.random.key(0)))
    with checkpoint.Stream(folder / TRAJECTORY) as stream:
        for step in STEPS:
            rng = np.random.default_rng(step)
            flat = {path: rng.normal(0, 0.2, leaf.shape) for path, leaf in shapes.items()}
            params = tree.unflatten({path: np.float32(value) for path, value in flat.items()})
            stream.save(step, {item_name(RAW): params}, {'step': step})
    return folder


@pytest.fixture(scope='module')
def curve(made, tmp_path_factory):
    """(a copy of the run scored at every step, its output, the folder of the images)."""
    folder = tmp_path_factory.mktemp('curve')
    shutil.copytree(made, folder / 'run')
    arguments = [f'--workdir={folder}/run', '--step=all', '--sampler=onestep', '--labels=uniform']
    out = commands.run('evaluate', *arguments, f'--save_images={folder}/images')
    return folder / 'run', out, folder / 'images'


def rows(run):
    return [json.loads(line) for line in (run / 'scores.jsonl').read_text().splitlines()]


def test_several_steps_give_the_curve(curve):
    run, out, _ = curve
    points = json.loads((run / 'curve.json').read_text())
    stored = rows(run)
    assert [point['step'] for point in points] == list(STEPS)
    assert [point['value'] for point in points] == [row['fd_lenet'] for row in stored]
    assert {point['score'] for point in points} == {'fd_lenet_203'}
    assert {point['id'] for point in points} == {stored[0]['protocol']['id']}
    assert PIL.Image.open(run / 'curve.png').width > 600
    lines = out.splitlines()
    assert stored[0]['protocol']['id'] in lines[0] and 'labels uniform over 10' in lines[0]
    assert 'antialiasing to 28x28' in lines[0] and 'digits, split train, 1,500 images' in lines[0]
    assert all('fd_lenet_203' in line and ' evaluations ' in line for line in lines[1:4])
    assert 'warning' not in out and any(line.startswith('curve: ') for line in lines)


@pytest.mark.slow
def test_images_are_saved_when_they_are_asked_for_and_give_the_score_again(curve, tmp_path):
    """As a reference, the images behind a score are at distance 0 from it."""
    run, _, images = curve
    assert sorted(path.name for path in images.iterdir()) == [
        f'step{step}_weights_onestep' for step in STEPS
    ]
    pictures = images / 'step4_weights_onestep' / 'seed7'
    assert sorted(path.name for path in pictures.iterdir()) == [f'{i:06d}.png' for i in range(203)]
    file = tmp_path / 'own.npz'
    out = commands.run(
        'evaluate',
        'reference',
        f'--data={pictures}',
        '--extractor=lenet_digits',
        f'--to={file}',
        '--features',
    )
    assert 'folder, split train, 203 images' in out
    shutil.copytree(run, tmp_path / 'run')
    arguments = [f'--workdir={tmp_path}/run', '--labels=uniform', f'--reference={file}']
    out = commands.run('evaluate', *arguments, '--sampler=onestep', '--metrics=pr_lenet')
    row = rows(tmp_path / 'run')[-1]
    assert abs(row['fd_lenet']) < 1e-3 and row['precision_lenet'] == row['recall_lenet'] == 1
    assert row['protocol']['reference']['source'] == 'folder'
    assert row['protocol']['id'] != rows(run)[-1]['protocol']['id']
    assert row['protocol']['id'] in out


def test_scores_are_the_same_on_four_devices_and_with_another_batch(curve, tmp_path):
    run, _, images = curve
    shutil.copytree(run, tmp_path / 'run')
    (tmp_path / 'run' / 'scores.jsonl').unlink()
    arguments = [f'--workdir={tmp_path}/run', '--labels=uniform', '--sampler=onestep']
    arguments += ['--batch_size=30', f'--save_images={tmp_path}/images']
    commands.run('evaluate', *arguments, devices=4)
    (row,), stored = rows(tmp_path / 'run'), rows(run)[-1]
    assert row['protocol'] == stored['protocol']
    np.testing.assert_allclose(row['fd_lenet'], stored['fd_lenet'], rtol=1e-6)
    name = pathlib.Path('step4_weights_onestep', 'seed7', '000202.png')
    one, other = (np.asarray(PIL.Image.open(f / name), int) for f in (images, tmp_path / 'images'))
    assert np.abs(one - other).max() <= 1 and one.std() > 1


@pytest.mark.slow
def test_few_samples_are_told_on_the_terminal(curve, tmp_path):
    run, _, _ = curve
    shutil.copytree(run, tmp_path / 'run')
    out = commands.run('evaluate', f'--workdir={tmp_path}/run', '--samples=40', '--sampler=onestep')
    assert 'warning: too few samples or reference images for 84 features' in out
    assert rows(tmp_path / 'run')[-1]['protocol']['rank_deficient']
    assert 'fd_lenet_40' in out and 'curve' not in out
    assert rows(tmp_path / 'run')[-1]['rank'] <= 39


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--step=three'], ["'three'", "'all'"]),
        (['--step=3'], ['no step 3', '0, 2, 4']),
        (['--labels=random'], ['balanced', 'uniform']),
        (['--split=train'], ["'split'"]),
        (['--straightness=8', '--labels=uniform'], ['--straightness takes no --labels']),
        (['--batch_size=0'], ['batch_size', '0']),
        (['references'], ["'references'", 'reference']),
        (['--metrics=fid'], ["'fid'", 'fd_pixel, is_lenet']),
        (['--reference=none.npz'], ['no file of reference statistics none.npz']),
        (
            ['--extractor=inception'],
            ["'inception'", 'pt_inception-2015-12-05-6726825d.pth', '--weights=FILE', '--download'],
        ),
        (['--extractor=dinov2_vitl14', '--weights=none.pth'], ['no weights file none.pth']),
        (['--extractor=dinov2'], ["'dinov2'", "did you mean 'dinov2_vitl14'"]),
        (['--weights=x.pth'], ["'x.pth'", "the extractor is 'lenet_digits'"]),
        (['--download'], ["'lenet_digits'", 'dinov2_vitl14, inception']),
    ],
)
def test_evaluate_refuses(made, arguments, words):
    before = sorted(made.rglob('*'))
    line = commands.error('evaluate', f'--workdir={made}', *arguments)
    assert all(word in line for word in words), line
    assert sorted(made.rglob('*')) == before


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ([], ["'inception'", '--weights=FILE']),
        (['--extractor=lenet_digits'], ['--data=SOURCE is required']),
        (['--extractor=lenet_digits', '--data=mnist'], ["'mnist'", 'digits, folder, tfds']),
        (['--extractor=lenet_digits', '--data=tfds'], ['--data=tfds: write tfds:NAME']),
        (['--extractor=lenet_digits', '--data=digits:x'], ['write digits']),
        (['--extractor=lenet_digits', '--data=digits', '--split=val'], ["'val'", 'train']),
        (['--extractor=lenet_digits', '--data=digits', '--data_dir=x'], ['tfds:NAME']),
        (['--extractor=lenet_digits', '--data=digits', '--to=x.pt'], ['x.pt', '.npz']),
        (['--extractor=lenet_digits', '--data=digits', '--to=no/x.npz'], ['is not there']),
        (['--workdir=x'], ["'workdir'"]),
    ],
)
def test_reference_refuses(arguments, words):
    line = commands.error('reference', *arguments)
    assert all(word in line for word in words), line


@pytest.mark.slow
def test_a_reference_of_a_config_and_one_of_another_extractor(made, tmp_path):
    file = tmp_path / 'digits.npz'
    config = ['--config=tests/helpers/tiny.py:ect', f'--to={file}']
    assert '1,500 images' in commands.run('evaluate', 'reference', *config)
    assert 'is there already' in commands.error('evaluate', 'reference', *config)
    shutil.copytree(made, tmp_path / 'run')
    run = f'--workdir={tmp_path}/run'
    commands.run('evaluate', run, '--sampler=onestep')
    out = commands.run('evaluate', run, '--sampler=onestep', f'--reference={file}')
    assert 'stored)' in out  # the same statistics, the same protocol
    other = f'--reference={file}', '--extractor=lenet_fashion_mnist'
    line = commands.error('evaluate', run, *other)
    assert f"the reference {file} is of another extractor: name 'lenet_digits' there" in line
    assert 'write it with --features' in commands.error(
        'evaluate', run, f'--reference={file}', '--metrics=kd_lenet'
    )
    images = f'--save_images={tmp_path}/images'
    (tmp_path / 'images' / 'step4_weights_onestep').mkdir(parents=True)
    (tmp_path / 'images' / 'step4_weights_onestep' / 'mine.txt').write_text('mine')
    line = commands.error('evaluate', run, '--sampler=onestep', images)
    assert 'step4_weights_onestep is not empty' in line


# Downloads


@pytest.mark.slow
def test_the_benchmark_of_memory_runs():
    script = commands.ROOT / 'benchmarks' / 'evaluate.py'
    command = [sys.executable, str(script), '--memory', '--points=300']
    out = subprocess.run(
        command, capture_output=True, text=True, check=True, env=commands.environment()
    ).stdout
    assert 'precision and recall of 300 x 2048' in out and 'recall 0.' in out


def test_another_run_guides_and_images_are_truncated(made, tmp_path):
    """evaluate and sample name the guide with its step, and evaluate the rule of the bytes."""
    run, spec = tmp_path / 'run', f'onestep+auto2={made},2'
    shutil.copytree(made, run)
    flags = (f'--workdir={run}', '--ema=', f'--sampler=onestep+auto2={made}')
    commands.run('evaluate', *flags, '--bytes=truncate', '--step=2', '--step=4')
    commands.run('evaluate', *flags, '--bytes=truncate', '--sampler=onestep', '--step=2')
    protocols = [row['protocol'] for row in rows(run)]
    full = spec.replace(',2', ',4')
    assert [p['sampler'] for p in protocols] == [full, full, 'onestep']
    assert [p['evaluations'] for p in protocols] == [2, 2, 1]
    assert {p['rounding'] for p in protocols} == {'floor(clip(127.5*x + 127.5, 0, 255))'}
    commands.run('sample', f'--workdir={run}', '--ema=', f'--sampler={spec}', '--count=4')
    (record,) = (run / 'samples').glob('*.json')
    assert json.loads(record.read_text())['sampler'] == spec
    line = commands.error('sample', f'--workdir={run}', f'--sampler=onestep+auto2={tmp_path}/no')
    assert 'no is no run folder' in line
