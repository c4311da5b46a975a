"""A search over five snapshots of a few numbers, and the denoiser that they are weights of."""

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax import data, samplers, sharding
from cm_jax.core import process as processes
from cm_jax.evaluation import scores
from cm_jax.lcsc import ask_tell, criterion, storage
from cm_jax.lcsc import space as spaces
from cm_jax.lcsc.fitness import make_fitness, make_values
from cm_jax.models import lenet
from cm_jax.samplers import GenerativeModel

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

    reference = scores.reference(data.open_source('digits', 'test'), extractor, 500, keep)
    metric = {'fd_lenet': 1.0} if wanted is None else wanted
    built = criterion.build([scores.FeatureSpace(extractor, reference)], metric, 40)
    stored = storage.store(load, range(0, 10 * COUNT, 10), where=where, dtype=dtype)
    values = make_values(
        GenerativeModel(small_denoise, process, (8, 8, 1), 10),
        samplers.build('multistep@80,1', process),
        built,
        storage.place(stored, sharding.make_mesh()),
        samples=40,
        batch_size=20,
        **settings,
    )
    return make_fitness(built, values), loaded


def numpy_combination(space: spaces.Space, networks: list, c: np.ndarray):
    rows = np.float64(np.float32(c)).reshape(space.groups, -1)
    return jax.tree.map(
        lambda group, *each: np.tensordot(rows[group], np.stack(each).astype(np.float64), 1),
        space.indices(networks[0]),
        *networks,
    )


def combined(stored: storage.Stored, space: spaces.Space, candidates) -> list:
    """The weights that a search makes of candidates [P, G K], for each."""
    mesh = sharding.make_mesh()
    program = storage.make_combine(storage.place(stored, mesh), space, sharding.by_example(mesh))
    padded = np.resize(candidates, (jax.device_count(), len(candidates), candidates.shape[1]))
    weights = jax.tree.map(np.asarray, program(padded))
    return [jax.tree.map(lambda leaf, i=i: leaf[0, i], weights) for i in range(len(candidates))]


def search_with(**settings) -> dict:
    """A short search on all devices there are."""
    fitness, _ = small_fitness(**settings)
    state = ask_tell.init(jax.random.key(0), COUNT, population=6)
    for _ in range(3):
        candidates, state = ask_tell.ask(state)
        state = ask_tell.tell(state, candidates, fitness(candidates, 1))
    return ask_tell.to_plain(state)
