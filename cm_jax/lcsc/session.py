"""A search under way: its snapshots, and what it scores candidates with."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from cm_jax import run_folder, sharding
from cm_jax.errors import UserError
from cm_jax.evaluation.scores import FeatureSpace, Scorer
from cm_jax.lcsc import ask_tell, combine, derivative, storage
from cm_jax.lcsc import criterion as criteria
from cm_jax.lcsc.criterion import Criterion
from cm_jax.lcsc.derivative import Differentiate, make_derivative
from cm_jax.lcsc.fitness import Fitness, Values, make_fitness, make_values
from cm_jax.lcsc.job import SEARCH, Job
from cm_jax.lcsc.snapshots import Snapshot
from cm_jax.lcsc.space import Space
from cm_jax.lcsc.storage import Placed
from cm_jax.metrics.features import round_straight_through, round_uint8
from cm_jax.run_folder import write_record
from cm_jax.types import Params
from cm_jax.wiring import open_spaces

KEPT = 2**30  # bytes: snapshots are read from the run once, if all of them together take no more
CANDIDATES_A_DEVICE = 16  # whose weights are in memory together, beside stacked snapshots


@dataclasses.dataclass(frozen=True, kw_only=True)
class Session:
    """A search under way: what it was told, its folder, and what it scores candidates with."""

    job: Job
    workdir: epath.Path
    mesh: Mesh
    spaces: Sequence[FeatureSpace]  # the first is that of the report's score
    criterion: Criterion  # what the search minimises
    scorer: Scorer  # of the report

    @property
    def searched(self) -> list[str]:
        """The scores of the feature spaces that the search minimises a metric in."""
        return [part.space.extractor.score for part in self.criterion.parts]

    @property
    def second(self) -> list[str]:
        """The scores of those that it does not use, in which the report has second opinions."""
        scores = [space.extractor.score for space in self.spaces]
        return [score for score in scores if score not in self.searched]

    @functools.cached_property
    def placed(self) -> Placed:
        """The snapshots; they are read when they are asked for first."""
        return self.place(self.load, self.job.snapshots)

    @functools.cached_property
    def load(self) -> Callable[[Snapshot], Params]:
        """What loads a snapshot, from memory the second time if all fit into KEPT bytes."""
        load, snapshots, kept = self.job.load, self.job.snapshots, dict[str, Params]()
        one = sum(leaf.nbytes for leaf in jax.tree.leaves(load(snapshots[-1])))
        if one * len(snapshots) > KEPT:
            return load

        def load_once(snapshot: Snapshot) -> Params:
            name = str(snapshot)
            if name not in kept:
                kept[name] = load(snapshot)
            return kept[name]

        return load_once

    def place(self, load: Callable[[Any], Params], names: Sequence[Any]) -> Placed:
        """Returns the weights `load(name)` as snapshots within reach of the devices."""
        basis = self.job.settings.basis
        stored = storage.store(load, names, where=basis.storage, dtype=basis.dtype)
        return storage.place(stored, self.mesh)

    def values_of(self, placed: Placed, space: Space) -> Values:
        """Returns what measures combinations of snapshots."""
        job, budget, start = self.job, self.job.settings.budget, self.job.states[SEARCH]
        profiles = len(
            ask_tell.profile_identities(start)
        )  # all that a descent has to score together
        population = getattr(start.settings, 'population', profiles)
        at_once = min(population, CANDIDATES_A_DEVICE * self.mesh.size)
        return make_values(
            job.run.parts.generative_model,
            job.sampler,
            self.criterion,
            placed,
            samples=budget.samples,
            batch_size=budget.batch_size,
            space=space,
            at_once=population if placed.streamed else at_once,
            rounding=functools.partial(round_uint8, rule=job.evaluation.bytes),
        )

    @functools.cached_property
    def values(self) -> Values:
        """The metrics of candidates."""
        return self.values_of(self.placed, self.job.space)

    @functools.cached_property
    def units(self) -> np.ndarray:
        """The units of the metrics; relative ones are measured once, and kept in the folder."""
        budget, path = self.job.settings.budget, self.workdir / run_folder.UNITS
        if budget.units == 'given':
            return np.ones(len(self.criterion.names))
        if not path.exists():
            profiles, _ = ask_tell.ask(self.job.states[SEARCH])
            found = self.criterion.units(self.values(profiles, budget.seed))
            write_record(path, dict(zip(self.criterion.names, found.tolist())))
        return run_folder.read_record(
            self.workdir,
            run_folder.UNITS,
            lambda stored: np.array([float(stored[name]) for name in self.criterion.names]),
        )

    @functools.cached_property
    def fitness(self) -> Fitness:
        """The score of candidates."""
        return make_fitness(self.criterion, self.values, self.units)

    @functools.cached_property
    def differentiate(self) -> Differentiate:
        """The score of a candidate with its derivative."""
        job = self.job
        return make_derivative(
            job.run.parts.generative_model,
            job.sampler,
            self.criterion,
            self.placed,
            samples=job.settings.budget.samples,
            batch_size=job.gradient_batch,
            space=job.space,
            units=self.units,
            rounding=functools.partial(round_straight_through, rule=job.evaluation.bytes),
        )

    def combined(self, coefficients: np.ndarray) -> Params:
        """Returns the exact weights of a candidate, which training could go on from."""
        job = self.job
        params = combine.combine(self.load, job.snapshots, coefficients, job.space)
        return job.run.project(params)


def open_session(job: Job, workdir: epath.Path) -> Session:
    """Opens what candidates are scored with. Raises UserError on a wrong metric."""
    run, evaluation, mesh = job.run, job.evaluation, sharding.make_mesh()
    if job.states[SEARCH].method == 'gradient':
        derivative.check(job.metric)
        if job.gradient_batch % mesh.size:
            raise UserError(
                f'config.gradient.batch_size = {job.gradient_batch} is no multiple of the '
                f'{mesh.size} devices, which share each batch'
            )
    metrics = criteria.sources(job.metric)
    spaces = open_spaces(run.settings.dataset, evaluation, metrics, unused_kinds=('pr',))
    metric = job.metric or {spaces[0].extractor.score: 1.0}
    criterion = criteria.build(spaces, metric, job.settings.budget.samples)
    model, rule = run.parts.generative_model, evaluation.bytes
    scorer = Scorer(model, spaces, evaluation.batch_size, mesh, rule=rule)
    return Session(
        job=job, workdir=workdir, mesh=mesh, spaces=spaces, criterion=criterion, scorer=scorer
    )


def cost(job: Job) -> dict[str, int]:
    """Returns the network evaluations that the search itself took, on search and selection noise.

    A pass forward counts 1, one back 2. Those of the windows and BEMA averages are under 'baselines',
    where any were scanned. The post-hoc averages, which are none of the snapshots, are not counted.
    """
    state, budget = job.states[SEARCH], job.settings.budget
    first = len(ask_tell.profile_identities(state))
    each = budget.samples * job.sampler.evaluations
    if state.method == 'gradient':
        children = budget.generations
        step = derivative.network_passes(job.sampler, budget.samples, job.gradient_batch)
    else:
        children, step = budget.generations * state.settings.population, each
    selected = (first + min(budget.finalists, children)) * len(budget.selection_seeds)
    profiles = first * (1 if budget.units == 'given' else 2) * each
    found = {'search': profiles + children * step, 'selection': selected * each}
    scanned = len(job.scanned) * len(budget.selection_seeds) * each
    return found | ({'baselines': scanned} if scanned else {})
