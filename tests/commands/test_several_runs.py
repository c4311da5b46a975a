"""A search over several runs, and one over a network whose weights are normalised."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from etils import epath
from ml_collections import ConfigDict

from cm_jax import run_folder, samplers
from cm_jax.core import tree
from cm_jax.generate import build_sampler
from cm_jax.lcsc import combine
from cm_jax.models import edm2_unet
from cm_jax.run import open_run
from tests.helpers import commands, tiny
from tests.helpers.run_folders import untrained_run

pytestmark = pytest.mark.devices
SHORT = ['--config=tests/helpers/tiny_search.py', '--config.controls.landscape=0']
SHORT += ['--config.controls.random=False', '--config.budget.generations=1']


@pytest.fixture(scope='module')
def several(tmp_path_factory):
    """The folder of two runs and of a search over both, and what the search printed."""
    runs = tmp_path_factory.mktemp('several')
    for name, steps in (('a', (1, 2, 4)), ('b', (3, 4))):
        untrained_run(runs / name, tiny.get_config(), steps)
    out = commands.run(
        'search',
        *SHORT,
        f'--workdir={runs}/lcsc',
        f'--config.basis.workdir={runs}/a,{runs}/b',
        '--config.controls.windows=2',
        '--config.controls.bema=(0.2,)',
    )
    return runs, out


def test_a_search_over_several_runs_combines_the_snapshots_of_all(several):
    runs, out = several
    assert '5 snapshots of 2 runs, steps 1 to 4' in out
    record = run_folder.read_record(epath.Path(runs / 'lcsc'), 'coefficients.json')
    assert record['workdir'] == f'{runs}/a,{runs}/b' and record['steps'] == [1, 2, 3, 4, 4]
    assert [path[-1] for path in record['runs']] == ['a', 'a', 'b', 'a', 'b']
    assert record.items() <= json.loads((runs / 'lcsc' / 'origin.json').read_text()).items()
    load = lambda one: open_run(one[0]).params(one[1])  # noqa: E731
    named = list(zip(record['runs'], record['steps']))
    expected = combine.combine(load, named, record['coefficients'])
    result = open_run(runs / 'lcsc')
    jax.tree.map(np.testing.assert_array_equal, result.params(), expected)
    assert np.asarray(PIL.Image.open(runs / 'lcsc' / 'coefficients.png')).std() > 0


def test_averages_of_one_run_are_left_out_of_a_search_over_several(several):
    runs, out = several
    assert 'left out: stored and post-hoc averages' in out
    rows = json.loads((runs / 'lcsc' / 'report.json').read_text())['rows']
    kinds = ['last', 'ema*', 'uniform', 'window', 'bema', 'lcsc']
    assert list(dict.fromkeys(row['kind'] for row in rows)) == kinds


def test_a_search_over_several_runs_has_a_page_and_is_in_no_comparison(several):
    runs, _ = several
    commands.run('report', f'--workdir={runs}/lcsc', '--samples=2')
    text = (runs / 'lcsc' / 'report.html').read_text()
    assert f'The combination of 5 checkpoints of {runs}/a,{runs}/b' in text
    assert text.count('<img ') == 3 and text.count('<svg ') == 2
    assert f'LCSC, {runs}/b' in text  # the line of its coefficients
    line = commands.error(
        'report', *(f'--{name}={runs}/a' for name in ('teacher', 'ect')), f'--workdir={runs}'
    )
    assert f'is a search over several runs, {runs}/a,{runs}/b' in line


def edm2_config():
    config = tiny.get_config('edm')
    config.model = ConfigDict(
        {'name': 'edm2_unet', 'channels': 4, 'channel_mult': (1,), 'num_blocks': 1}
    )
    config.model.attn_resolutions = ()
    return config


def test_the_result_over_normalised_weights_is_normalised_and_samples_as_the_combination(tmp_path):
    """As far as EDM2's small number allows, which it adds to each norm before it divides."""
    run = untrained_run(tmp_path / 'edm2', edm2_config(), (1, 2, 3))
    basis = f'--config.basis.workdir={run.workdir}'
    commands.run('search', *SHORT, f'--workdir={tmp_path}/lcsc', basis)
    record = json.loads((tmp_path / 'lcsc' / 'coefficients.json').read_text())
    combined = combine.combine(run.params, record['steps'], record['coefficients'])
    projected = open_run(tmp_path / 'lcsc').params()
    kernels = {p: leaf for p, leaf in tree.flatten(projected).items() if p[-1] == 'kernel'}
    for path, leaf in kernels.items():
        squares = np.mean(leaf**2, axis=tuple(range(leaf.ndim - 1)))
        np.testing.assert_allclose(squares, 1, atol=1e-3, err_msg=str(path))
    assert jax.tree.map(np.shape, combined) == jax.tree.map(np.shape, projected)
    moved = [np.abs(leaf - tree.flatten(combined)[path]).max() for path, leaf in kernels.items()]
    assert max(moved) > 0.01  # the combination itself was not normalised
    model = run.parts.generative_model
    sampler = build_sampler('multistep@80,1', model)
    sample = jax.jit(lambda p: samplers.generate(sampler, model, p, jnp.int32(0), jnp.arange(8)))
    found, expected = sample(projected), sample(combined)
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(found, expected, atol=20 * edm2_unet.EPSILON * np.std(expected))
