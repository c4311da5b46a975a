"""What a search is told: its settings, checked against the run that they name."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from cm_jax.bounds import LARGEST, BatchSize
from cm_jax.errors import UserError, check_name, check_section, check_value
from cm_jax.evaluation.extractors import check_extractor
from cm_jax.generate import build_sampler
from cm_jax.lcsc import (
    ask_tell,
    baselines,
    derivative,
    evolution,
    gradient,
    random_search,
    snapshots,
    space,
    storage,
)
from cm_jax.lcsc.ask_tell import SearchState
from cm_jax.lcsc.baselines import Baseline
from cm_jax.lcsc.identity import KINDS
from cm_jax.lcsc.snapshots import Snapshot
from cm_jax.lcsc.space import Space
from cm_jax.run import Run, open_run
from cm_jax.samplers import Sampler
from cm_jax.settings import Basis, Budget, Evaluation, SearchSettings
from cm_jax.types import Params

SEARCH, RANDOM = 'search', 'random'  # the names of the search and of its control


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A search, opened and checked, before any compute."""

    settings: SearchSettings
    runs: Sequence[Run]  # the training runs, as they are named; mostly one
    snapshots: Sequence[Snapshot]  # that are combined
    space: Space
    sampler: Sampler
    metric: Mapping[str, float]  # name -> weight; {} is the extractor's Fréchet distance
    budgets: Mapping[str, Budget]  # of the search and of its control
    gradient_batch: int  # images that go forward and back together
    evaluation: Evaluation  # of the report: with the search's sampler, whatever others there are
    states: Mapping[str, SearchState]  # the starts of the search and of its control
    averages: Sequence[str]  # that the run stored at the last snapshot; none of several runs
    scanned: Sequence[Baseline]  # the windows and BEMA averages to choose from
    posthoc: Sequence[Baseline]  # the post-hoc averages to choose from

    @property
    def run(self) -> Run:
        """The training run, of several that of the last snapshot."""
        return self.snapshots[-1].run

    @property
    def steps(self) -> list[int]:
        """The training steps of the snapshots; those of several runs repeat."""
        return [snapshot.step for snapshot in self.snapshots]

    def load(self, snapshot: Snapshot) -> Params:
        """Returns the weights of a snapshot."""
        return snapshot.run.params(snapshot.step, self.settings.basis.ema)

    def origin(self) -> dict[str, Any]:
        """Returns what was combined, as it is stored; of several runs, with the run of each step."""
        of_each = [str(snapshot.run.workdir) for snapshot in self.snapshots]
        return {
            'workdir': ','.join(str(run.workdir) for run in self.runs),
            'ema': self.settings.basis.ema,
            'steps': self.steps,
            **({'runs': of_each} if len(self.runs) > 1 else {}),
            'groups': list(self.space.patterns),
        }


def open_job(settings: SearchSettings) -> Job:
    """Opens a search. Raises UserError on whatever is wrong in its settings or in the run."""
    basis, budget, controls = settings.basis, settings.budget, settings.controls
    method, batch = method_settings(settings), gradient_batch(settings)
    runs = [open_run(folder) for folder in snapshots.folders(basis.workdir)]
    found = snapshots.ordered(runs, basis)
    steps, run = [snapshot.step for snapshot in found], found[-1].run
    groups = open_groups(found, basis)
    evaluation = settings.evaluation
    samplers = tuple(dict.fromkeys((budget.sampler, *evaluation.samplers)))
    evaluation = dataclasses.replace(evaluation, samplers=samplers)
    check_extractor(evaluation)
    sampler, *_ = (build_sampler(spec, run.parts.generative_model) for spec in samplers)
    check_noise(budget, evaluation)
    if controls.landscape and len(steps) < 3:
        raise UserError(
            f'config.controls.landscape = {controls.landscape} goes through three snapshots, on a grid '
            f'of n x n candidates, 0 for none; the window holds {len(steps)} snapshots'
        )
    for kind in controls.reported:
        check_name('kind of model in config.controls.reported', kind, KINDS)
    states = start_states(settings, method, len(steps), groups.groups)
    averages, posthoc = open_averages(runs, steps[-1], controls.posthoc)
    return Job(
        settings=settings,
        runs=runs,
        snapshots=found,
        space=groups,
        sampler=sampler,
        metric=parse_metric(budget.metric),
        budgets=budgets(budget, states, sampler, batch),
        gradient_batch=batch,
        evaluation=evaluation,
        states=states,
        averages=averages,
        scanned=[
            *baselines.windows(steps, controls.windows),
            *baselines.bemas(steps, controls.bema),
        ],
        posthoc=posthoc,
    )


def open_averages(
    runs: Sequence[Run], step: int, sigma_rels: Sequence[float]
) -> tuple[list[str], list[Baseline]]:
    """Returns the averages that the run stored at `step`, and the post-hoc ones that it can make.

    Says on the terminal what is left out: both, where the runs are several.
    """
    if len(runs) > 1:
        print('  left out: stored and post-hoc averages; each is of one run, and these are several')
        return [], []
    stored = runs[0].emas(step)
    if not stored:
        print(f"  left out: the run's own averages; it stored none at step {step}")
    return stored, baselines.posthocs(runs[0], step, sigma_rels)


def open_groups(found: Sequence[Snapshot], basis: Basis) -> Space:
    """Returns the groups of weights. Raises UserError if the basis does not suit the snapshots."""
    for snapshot in found:
        snapshot.run.check_ema(snapshot.step, basis.ema)
    check_name('storage of snapshots', basis.storage, storage.WHERE)
    check_name('dtype of stored snapshots', basis.dtype, storage.DTYPES)
    named = basis.groups in ((space.TOP_LEVEL,), (space.LEAVES,))
    groups = basis.groups[0] if named else basis.groups
    return space.build(groups, found[-1].run.params(found[-1].step, basis.ema))


def check_noise(budget: Budget, evaluation: Evaluation) -> None:
    """Raises UserError if a stream of noise is used twice."""
    seeds = (budget.seed, *budget.selection_seeds, *evaluation.seeds)
    if len(set(seeds)) < len(seeds):
        raise UserError(
            f'search noise (seed {budget.seed}), selection noise {tuple(budget.selection_seeds)} and '
            f'report noise {tuple(evaluation.seeds)} must be different seeds'
        )


def gradient_batch(settings: SearchSettings) -> int:
    """Returns how many images go forward and back together in a step of the method 'gradient'.

    Raises UserError unless they divide the samples of a step.
    """
    budget, given = settings.budget, settings.gradient.get('batch_size')
    given = check_value('config.gradient.batch_size', BatchSize | None, given)
    batch = budget.batch_size if given is None else given
    if budget.samples % batch:
        raise UserError(
            f'config.gradient.batch_size = {batch} must be a divisor of '
            f'config.budget.samples = {budget.samples}'
        )
    if (budget.generations + 1) * budget.samples > LARGEST:
        raise UserError(
            f'config.budget: {budget.generations} generations of {budget.samples} samples are more '
            f'than the {LARGEST:,} samples of a stream of noise'
        )
    return batch


def budgets(
    budget: Budget, states: Mapping[str, SearchState], sampler: Sampler, batch: int
) -> dict[str, Budget]:
    """Returns the budgets of the search and of the random search, which costs as much.

    A step of the method 'gradient' costs as much as several candidates: its control has as many more.
    """
    control = budget
    if states[SEARCH].method == 'gradient' and RANDOM in states:
        step = derivative.network_passes(sampler, budget.samples, batch)
        candidates = budget.generations * step / (budget.samples * sampler.evaluations)
        generations = round(candidates / states[RANDOM].settings.population)
        control = dataclasses.replace(budget, generations=max(generations, 1))
    return {SEARCH: budget, RANDOM: control}


def method_settings(settings: SearchSettings) -> dict[str, Any]:
    """Returns the arguments of `ask_tell.init` that the config's sections hold for its method.

    Raises UserError on a wrong value in these sections, also in one that the method does not use.
    """
    given = dict(settings.search)
    of_evolution = check_section('evolution', evolution.Settings, settings.evolution, given)
    adam = {key: value for key, value in settings.gradient.items() if key != 'batch_size'}
    adam = check_section('gradient', gradient.Settings, adam, ('steps', *given))
    if given.get('method') == 'evolution':
        given |= of_evolution
    if given.get('method') == 'gradient':
        steps = settings.budget.generations
        if steps < 1:
            raise UserError(
                f'config.budget.generations must be at least 1 for gradient, got {steps}'
            )
        common = {key: value for key, value in given.items() if key not in ('population', 'scale')}
        given = {**common, 'steps': steps, **adam}
    of_method = {key: value for key, value in given.items() if key != 'method'}
    check_name('search method', given.get('method', ''), ask_tell.METHODS)
    check_section('search', ask_tell.METHODS[given['method']].Settings, of_method)
    return given


def start_states(
    settings: SearchSettings, method: Mapping[str, Any], k: int, groups: int
) -> dict[str, SearchState]:
    """Returns the starts of the search by `method`, and of a random search that costs as much."""
    key = jax.random.key(settings.seed)
    states = {SEARCH: ask_tell.init(key, k, groups=groups, **method)}
    if settings.controls.random:
        common = {name: settings.search[name] for name in random_search.Settings._fields}
        control = jax.random.fold_in(key, 1)
        states[RANDOM] = ask_tell.init(control, k, method='random', groups=groups, **common)
    return states


def parse_metric(text: str) -> dict[str, float]:
    """Returns {'fd_lenet': 1, 'kd_lenet': 100} for 'fd_lenet+100*kd_lenet'; {} for ''."""
    weights = {}
    for term in text.split('+') if text else ():
        weight, _, name = term.rpartition('*')
        try:
            weights[name.strip()] = float(weight or 1)
        except ValueError:
            raise UserError(
                f'config.budget.metric {text!r}: write metrics by their names, each perhaps with a '
                'weight before it, as fd_lenet+100*kd_lenet'
            ) from None
    return weights
