"""LCSC: snapshots, their combinations and where they are stored, groups, metrics, the fitness."""

import json
import logging
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import data, samplers, sharding
from cm_jax.core import precond
from cm_jax.core import process as processes
from cm_jax.errors import UserError
from cm_jax.evaluation import scores
from cm_jax.lcsc import ask_tell, combine, criterion, storage
from cm_jax.lcsc import space as spaces
from cm_jax.lcsc.fitness import make_fitness
from cm_jax.metrics import named
from cm_jax.models import build, lenet
from cm_jax.samplers import GenerativeModel
from tests.helpers import commands


def test_the_window_keeps_the_last_snapshot_and_needs_two():
    steps = [0, 10, 20, 30, 40]
    assert combine.window(steps, 0, None, 1) == steps
    assert combine.window(steps, 5, 35, 1) == [10, 20, 30]
    assert combine.window(steps, 0, None, 3) == [10, 40]
    with pytest.raises(UserError, match='holds 1 of the 5 snapshots'):
        combine.window(steps, 40, None, 1)
    with pytest.raises(UserError, match='holds 0 of the 5 snapshots'):
        combine.window(steps, 50, None, 1)


@pytest.fixture(scope='module')
def parts():
    """A generative_model with four random networks, and a reference."""
    process = processes.variance_exploding()
    settings = {'name': 'song_unet', 'channels': 4, 'channel_mult': (1,), 'num_blocks': 1}
    model = build(settings, (8, 8, 1), 10)
    denoise = precond.precondition(model.net, lambda t: precond.edm_scalings(t, 0.5))
    generative_model = GenerativeModel(denoise, process, (8, 8, 1), 10)
    networks = [jax.tree.map(np.asarray, model.init(jax.random.key(i))) for i in range(4)]
    extractor = lenet.extractor('lenet_digits')
    reference = scores.reference(data.open_source('digits', 'train'), extractor, 500)
    return generative_model, networks, extractor, reference


def fitness_of(parts, devices_mesh, samples=40, spec='multistep@80,1'):
    generative_model, networks, extractor, reference = parts
    return make_fitness(
        generative_model,
        samplers.build(spec, generative_model.process),
        extractor,
        reference,
        storage.store(lambda k: networks[k], range(4)),
        samples=samples,
        batch_size=20,
        mesh=devices_mesh,
    )


def test_fitness_of_a_one_hot_candidate_is_the_score_of_that_network(parts):
    spec = 'multistep@80,1+cfg3'
    generative_model, networks, extractor, reference = parts
    mesh = sharding.make_mesh()
    found = fitness_of(parts, mesh, spec=spec)(np.eye(4), 3)
    scorer = scores.Scorer(generative_model, extractor, reference, 20, mesh)
    for network, fitness in zip(networks, found):
        row = scorer.score(network, spec, 40, (3,), ema='', step=0)
        np.testing.assert_allclose(fitness, row['fd_lenet'], rtol=1e-4)
        assert row['protocol']['sampler'] == spec and row['protocol']['evaluations'] == 4


def test_levels_share_a_program_and_each_has_its_own_score(parts):
    generative_model, _, extractor, reference = parts
    traced = []

    def denoise(params, x, t, label):
        traced.append(1)
        return params * jnp.tanh(x) / (1 + t[:, None, None, None])

    counted = generative_model._replace(denoise=denoise)
    scorer = scores.Scorer(counted, extractor, reference, 20, sharding.make_mesh())
    found, traces = [], []
    for level in (1, 5, 1):
        row = scorer.score(0.9, f'multistep@80,{level}', 40, (3,), ema='', step=0)
        found.append(row['fd_lenet'])
        traces.append(len(traced))
        assert row['protocol']['levels'] == [80, level]
    assert traces[0] == traces[1] == traces[2]
    assert found[0] == found[2] != found[1]


def test_fitness_depends_on_the_seed_and_a_broken_candidate_scores_nan(parts):
    fitness = fitness_of(parts, sharding.make_mesh())
    population = np.array([[1.0, 0, 0, 0], [np.nan, 0, 0, 1], [0.5, 0.5, -1, 1]])
    first, again, other = fitness(population, 0), fitness(population, 0), fitness(population, 1)
    np.testing.assert_array_equal(first, again)
    assert np.isnan(first[1]) and np.isfinite(first[[0, 2]]).all()
    assert (first[[0, 2]] != other[[0, 2]]).all()


# Where snapshots are stored, and groups of weights, on weights and a denoiser of a few numbers

COUNT = 5
COEFFICIENTS = np.random.default_rng(0).normal(0, 2, (6, COUNT))
COEFFICIENTS[:, 0] += 1 - COEFFICIENTS.sum(1)


def small_snapshots() -> list:
    rng = np.random.default_rng(0)
    centre = {'in': {'w': rng.normal(size=(8, 8))}, 'out': {'w': rng.normal(size=(8, 8)), 'b': 0.3}}
    move = lambda c: np.asarray(c + 0.1 * rng.normal(size=np.shape(c)), np.float32)  # noqa: E731
    return [jax.tree.map(move, centre) for _ in range(COUNT)]


def small_denoise(params, x, t, label):
    """[B,8,8,1], two products of which each mixes rows."""
    mixed = jnp.einsum('bijc,ik->bkjc', jnp.tanh(x), params['in']['w'], precision='highest')
    out = jnp.einsum('bijc,ik->bkjc', jnp.tanh(mixed), params['out']['w'], precision='highest')
    return 0.3 * out + params['out']['b'] + 0 * t[:, None, None, None]


def small_fitness(where='device', dtype='float32', wanted=None, keep=False, **settings):
    """The fitness of small_snapshots on all devices there are, and the list of snapshots loaded."""
    networks, loaded = small_snapshots(), []
    extractor = lenet.extractor('lenet_digits')
    process = processes.variance_exploding()

    def load(step: int):
        loaded.append(step)
        return networks[step // 10]

    fitness = make_fitness(
        GenerativeModel(small_denoise, process, (8, 8, 1), 10),
        samplers.build('multistep@80,1', process),
        extractor,
        scores.reference(data.open_source('digits', 'test'), extractor, 500, keep),
        storage.store(load, range(0, 10 * COUNT, 10), where=where, dtype=dtype),
        samples=40,
        batch_size=20,
        mesh=sharding.make_mesh(),
        metric=wanted,
        **settings,
    )
    return fitness, loaded


@pytest.fixture(scope='module')
def on_device():
    return small_fitness()[0](COEFFICIENTS, 1)


@pytest.mark.parametrize('where', ['host', 'disk'])
def test_streamed_snapshots_give_the_scores_of_those_on_the_device(where, on_device):
    fitness, loaded = small_fitness(where)
    del loaded[:]
    np.testing.assert_allclose(fitness(COEFFICIENTS, 1), on_device, rtol=1e-5)
    assert loaded == ([0, 10, 20, 30, 40] if where == 'disk' else [])  # once for all candidates


def test_no_more_candidates_than_asked_are_in_memory_together(on_device):
    fitness, loaded = small_fitness('disk', at_once=2)
    del loaded[:]
    np.testing.assert_allclose(fitness(COEFFICIENTS, 1), on_device, rtol=1e-5)
    assert loaded == [0, 10, 20, 30, 40] * -(-len(COEFFICIENTS) // 2)  # once for every two


@pytest.mark.slow
def test_bfloat16_storage_is_near_float32_and_its_last_snapshot_exact(on_device):
    population = np.concatenate([COEFFICIENTS, np.eye(COUNT)])
    exact = small_fitness()[0](population, 1)
    found = {w: small_fitness(w, 'bfloat16')[0](population, 1) for w in storage.WHERE}
    for where in ('host', 'disk'):
        np.testing.assert_allclose(found[where], found['device'], rtol=1e-4)
    np.testing.assert_array_equal(found['device'][-1], exact[-1])
    assert not np.array_equal(found['device'][:-1], exact[:-1])
    np.testing.assert_allclose(found['device'], exact, rtol=0.02)
    np.testing.assert_array_equal(exact[: len(on_device)], on_device)


def test_bfloat16_loses_one_part_in_256_of_the_differences_from_the_last_snapshot():
    networks = small_snapshots()
    stored = storage.store(lambda k: networks[k], range(COUNT), dtype='bfloat16')
    leaves = jax.tree.leaves(stored.stacked)
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.bfloat16)}
    c = np.float32(COEFFICIENTS[0])
    found = combined(stored, spaces.ONE, c[None])[0]
    for one, *each in zip(*map(jax.tree.leaves, (found, *networks)), strict=True):
        each = np.stack(each).astype(np.float64)
        exact = np.tensordot(np.float64(c), each, 1)
        most = np.tensordot(np.abs(c), np.abs(each - each[-1:]), 1) * 2.0**-8
        assert np.all(np.abs(np.asarray(one, np.float64) - exact) <= most + 1e-6)


def test_what_is_stored_and_how_is_checked():
    for settings, words in (
        ({'where': 'tape'}, 'device, disk, host'),
        ({'dtype': 'int8'}, 'bfloat16'),
    ):
        with pytest.raises(UserError, match=words):
            storage.store(lambda k: {}, range(2), **settings)


def numpy_combination(space: spaces.Space, networks: list, c: np.ndarray):
    rows = np.float64(np.float32(c)).reshape(space.groups, -1)
    return jax.tree.map(
        lambda group, *each: np.tensordot(rows[group], np.stack(each).astype(np.float64), 1),
        space.indices(networks[0]),
        *networks,
    )


@pytest.mark.parametrize('groups', [(), ('out/b', 'out', ''), 'top_level'])
def test_combined_weights_are_the_linear_combination_of_each_group(groups):
    networks = small_snapshots()
    space = spaces.build(groups, networks[0])
    c = 6 * np.random.default_rng(1).normal(size=space.groups * COUNT)
    exact = numpy_combination(space, networks, c)
    found = combine.combine(lambda k: networks[k], range(COUNT), c, space)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6), found, exact)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}


def combined(stored: storage.Stored, space: spaces.Space, candidates) -> list:
    """The weights that a search makes of candidates [P, G K], for each."""
    program = storage.make_combine(stored, space, sharding.make_mesh())
    padded = np.resize(candidates, (jax.device_count(), len(candidates), candidates.shape[1]))
    weights = jax.tree.map(np.asarray, program(padded))
    return [jax.tree.map(lambda leaf, i=i: leaf[0, i], weights) for i in range(len(candidates))]


@pytest.mark.parametrize('where', storage.WHERE)
@pytest.mark.parametrize('groups', [(), ('out/b', 'out', '')])
def test_a_search_makes_the_same_weights_with_large_coefficients_of_both_signs(where, groups):
    """Within float32's rounding of the largest terms, and exactly theta_K where that is asked for."""
    networks = small_snapshots()
    space = spaces.build(groups, networks[0])
    rng = np.random.default_rng(1)
    rows = rng.uniform(-6, 6, (3, space.groups, COUNT))
    rows[:, :, -1] += 1 - rows.sum(2)
    rows[2] = np.eye(COUNT)[-1]
    rows = np.float32(rows.reshape(3, -1))
    stored = storage.store(lambda k: networks[k], range(COUNT), where=where)
    for row, found in zip(rows, combined(stored, space, rows)):
        exact = numpy_combination(space, networks, row)
        close = lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6)  # noqa: E731
        jax.tree.map(close, found, exact)
    jax.tree.map(np.testing.assert_array_equal, found, networks[-1])


@pytest.mark.parametrize('where', storage.WHERE)
def test_a_snapshot_that_is_not_finite_is_refused_by_its_step(where):
    networks = small_snapshots()
    networks[2]['in']['w'][3] = np.inf
    space, rows = spaces.ONE, np.eye(COUNT)[:1]
    with pytest.raises(UserError, match='the snapshot 20 has weights that are not finite'):
        load = lambda step: networks[step // 10]  # noqa: E731
        combined(storage.store(load, range(0, 10 * COUNT, 10), where=where), space, rows)


def test_one_hot_rows_take_each_group_from_its_snapshot_bit_for_bit():
    networks = small_snapshots()
    networks[2]['in']['w'][:] = np.inf
    space = spaces.build('top_level', networks[0])
    assert space.patterns == ('^in(/|$)', '^out(/|$)')
    c = np.concatenate([np.eye(COUNT)[1], np.eye(COUNT)[3]])
    found = combine.combine(lambda k: networks[k], range(COUNT), c, space)
    expected = {'in': networks[1]['in'], 'out': networks[3]['out']}
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_groups_are_checked_against_the_weights():
    params = small_snapshots()[0]
    for groups, words in (
        ('layers', "'top_level' or a sequence"),
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


# Metrics


@pytest.fixture(scope='module')
def rows():
    """What evaluate finds of each of COEFFICIENTS' networks, by all metrics."""
    networks, extractor = small_snapshots(), lenet.extractor('lenet_digits')
    process = processes.variance_exploding()
    names = list(named.names(extractor))
    scorer = scores.Scorer(
        GenerativeModel(small_denoise, process, (8, 8, 1), 10),
        extractor,
        scores.reference(data.open_source('digits', 'test'), extractor, 500, True),
        20,
        sharding.make_mesh(),
        names,
    )
    settings = {'ema': '', 'step': 0}
    load = lambda k: networks[k]  # noqa: E731
    models = [combine.combine(load, range(COUNT), c) for c in COEFFICIENTS[:3]]
    return [scorer.score(m, 'multistep@80,1', 40, (1,), **settings) for m in models]


@pytest.mark.parametrize(
    'wanted',
    [
        'fd_lenet',
        'kd_lenet',
        {'fd_lenet': 1.0, 'kd_lenet': 100.0},
        {'fd_lenet': 0.5, 'is_lenet': 3.0, 'recall_lenet': 10.0},
    ],
)
def test_a_metric_is_that_of_evaluate_and_higher_is_better_is_negated(wanted, rows):
    found = small_fitness(wanted=wanted, keep=True)[0](COEFFICIENTS[:3], 1)
    weights = {wanted: 1.0} if isinstance(wanted, str) else wanted
    signs = {'is_lenet': -1, 'recall_lenet': -1}
    expected = [sum(w * signs.get(n, 1) * row[n] for n, w in weights.items()) for row in rows]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_broken_candidate_scores_nan_by_its_features_too():
    population = np.array([[np.nan, 0, 0, 0, 1], COEFFICIENTS[0]])
    found = small_fitness(wanted={'kd_lenet': 1.0, 'fd_lenet': 1.0}, keep=True)[0](population, 1)
    assert np.isnan(found[0]) and np.isfinite(found[1])


def test_wrong_metrics_are_refused():
    for wanted, words in (
        ('fid', "unknown metric of a search .*'fid'"),
        ({'fd_lenet': -1.0}, 'must be > 0, got -1'),
        ({'kd_lenet': float('nan')}, 'must be > 0, got nan'),
        ({}, 'no metric; legal: .*density_lenet, fd_lenet, is_lenet, kd_lenet'),
    ):
        with pytest.raises(UserError, match=words):
            small_fitness(wanted=wanted)
    with pytest.raises(ValueError, match='need the features of the reference'):
        small_fitness(wanted='kd_lenet')
    assert criterion.sources({'fd_a': 1, 'recall_a': 1, 'precision_a': 1}) == ['fd_a', 'pr_a']


# Devices, and compilations


def search_with(**settings) -> dict:
    """A short search on all devices there are."""
    fitness, _ = small_fitness(**settings)
    state = ask_tell.init(jax.random.key(0), COUNT, population=6)
    for _ in range(3):
        candidates, state = ask_tell.ask(state)
        state = ask_tell.tell(state, candidates, fitness(candidates, 1))
    return ask_tell.to_plain(state)


@pytest.mark.devices
def test_four_devices_find_the_coefficients_and_the_scores_of_one():
    script = """
import json, jax
from tests.lcsc import test_lcsc
assert jax.device_count() == 4
print(json.dumps([test_lcsc.search_with(where=w) for w in ('device', 'host')]))
"""
    four = subprocess.run(
        [sys.executable, '-c', script],
        cwd=commands.ROOT,
        env=commands.environment(devices=4),
        capture_output=True,
        text=True,
        check=True,
    )
    one = search_with()
    for found in json.loads(four.stdout.splitlines()[-1]):
        np.testing.assert_allclose(found.pop('scores'), one['scores'], rtol=1e-6)
        np.testing.assert_array_equal(found.pop('coefficients'), one['coefficients'])
        assert found == {name: value for name, value in one.items() if name in found}


@pytest.mark.parametrize('where', ['device', 'disk'])
def test_no_size_of_population_compiles_again(where, caplog):
    fitness, _ = small_fitness(where)
    fitness(COEFFICIENTS[:1], 1)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        for population in (COEFFICIENTS[1:3], COEFFICIENTS, COEFFICIENTS[:5]):
            fitness(population, 2)
        assert not [record.message for record in caplog.records if 'ompil' in record.message]
        jax.jit(lambda x: x + 1)(jnp.zeros(3)).block_until_ready()
        assert [record.message for record in caplog.records if 'ompil' in record.message]


@pytest.mark.slow
def test_the_benchmark_runs_and_finds_no_late_compilation():
    found = subprocess.run(
        [sys.executable, 'benchmarks/lcsc.py', '--quick', '--rounds=1'],
        cwd=commands.ROOT,
        env=commands.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'compilations after the first generation: 0' in found.stdout
    assert 'Combining 4 snapshots' in found.stdout and 'A generation of 3' in found.stdout
