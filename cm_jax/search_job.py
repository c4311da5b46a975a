"""What a search is told: its config, opened and checked against the run that it names."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from cm_jax import search_report
from cm_jax.errors import UserError, call, check_name
from cm_jax.generate import build_sampler
from cm_jax.lcsc import combine, random_search, search, space, storage
from cm_jax.run import Run, open_run
from cm_jax.scores import Evaluation, check_numbers
from cm_jax.search_report import Controls
from cm_jax.types import Params
from cm_jax.wiring import evaluation


class Basis(NamedTuple):
    """A search config's `basis` section: the snapshots of `workdir` that are combined."""

    workdir: str
    start: int
    stop: int | None
    every: int
    ema: str
    groups: tuple[str, ...]  # see lcsc.space.build; ('top_level',) is its 'top_level'
    storage: str  # one of lcsc.storage.WHERE
    dtype: str  # one of lcsc.storage.DTYPES


class Budget(NamedTuple):
    """A search config's `budget` section."""

    sampler: str
    metric: str  # '', or metrics of lcsc.metric: 'kd_lenet', 'fd_lenet+100*kd_lenet'
    generations: int  # after the first, which scores the profiles
    samples: int  # a candidate
    batch_size: int
    seed: int  # of the search noise
    finalists: int  # ranked again on selection noise, by the mean over its seeds
    selection_seeds: tuple[int, ...]


class Job(NamedTuple):
    """A search, opened and checked, before any compute."""

    run: Run
    steps: list[int]
    basis: Basis
    space: space.Space
    budget: Budget
    metric: Mapping[str, float]  # {} is the extractor's Fréchet distance
    controls: Controls
    evaluation: Evaluation  # of the report: with the search's sampler, whatever others there are
    states: Mapping[str, search.SearchState]  # by name: 'search', and 'random' as a control
    posthoc: list[str]  # the averages to choose from

    def load(self, step: int) -> Params:
        """A snapshot."""
        return self.run.params(step, self.basis.ema)

    def store(self) -> storage.Stored:
        """The snapshots, read."""
        kept = {'where': self.basis.storage, 'dtype': self.basis.dtype}
        return storage.store(self.load, self.steps, **kept)


def open_job(config: Any) -> Job:
    """Raises UserError on whatever is wrong in the config or the run that it names."""
    basis = call('basis', Basis, config.basis)
    budget = call('budget', Budget, config.budget)
    controls = call('controls', Controls, config.controls)
    run = open_run(basis.workdir)
    steps = combine.window(run.steps(), basis.start, basis.stop, basis.every)
    for step in steps:
        run.check_ema(step, basis.ema)
    check_name('storage of snapshots', basis.storage, storage.WHERE)
    check_name('dtype of stored snapshots', basis.dtype, storage.DTYPES)
    groups = space.TOP_LEVEL if basis.groups == (space.TOP_LEVEL,) else basis.groups
    groups = space.build(groups, run.params(steps[-1], basis.ema))
    states = start_states(config, len(steps), groups.groups, controls)
    report = evaluation(config)
    report = report._replace(samplers=tuple(dict.fromkeys((budget.sampler, *report.samplers))))
    for spec in report.samplers:
        build_sampler(spec, run.parts.subject)
    check_budget(budget, report)
    if controls.landscape < 0 or (controls.landscape and len(steps) < 3):
        raise UserError(
            f'config.controls.landscape = {controls.landscape} goes through three snapshots, on a grid '
            f'of n x n candidates, 0 for none; the window holds {len(steps)} snapshots'
        )
    if not run.emas(steps[-1]):
        print(f"  left out: the run's own averages; it stored none at step {steps[-1]}")
    posthoc = search_report.posthoc_names(run, steps[-1], controls.posthoc)
    metric = parse_metric(budget.metric)
    return Job(run, steps, basis, groups, budget, metric, controls, report, states, posthoc)


def check_budget(budget: Budget, report: Evaluation) -> None:
    """Raises UserError on numbers that make no search, and on noise that is used twice."""
    if budget.batch_size < 1 or budget.samples < 2 or budget.samples % budget.batch_size:
        raise UserError(
            f'config.budget.samples {budget.samples} must be at least 2 and a multiple of the '
            f'batch_size {budget.batch_size}'
        )
    if budget.generations < 0 or budget.finalists < 1 or not budget.selection_seeds:
        raise UserError(
            'config.budget.generations must be at least 0, finalists at least 1, and selection_seeds '
            f'must hold one: got {budget.generations}, {budget.finalists}, {budget.selection_seeds}'
        )
    seeds = (budget.seed, *budget.selection_seeds, *report.seeds)
    if len(set(seeds)) < len(seeds):
        raise UserError(
            f'search noise (seed {budget.seed}), selection noise {tuple(budget.selection_seeds)} and '
            f'report noise {tuple(report.seeds)} must be different seeds'
        )
    check_numbers(budget.samples, seeds, budget.batch_size)


def start_states(
    config: Any, k: int, groups: int, controls: Controls
) -> dict[str, search.SearchState]:
    """The search, and the random search that it is compared with, of as many candidates."""
    settings = dict(config.search)
    if settings.get('method') == 'evolution':
        settings |= config.evolution
    found = {'search': search.init(jax.random.key(config.seed), k, groups=groups, **settings)}
    if controls.random:
        common = {name: settings[name] for name in random_search.Settings._fields}
        key = jax.random.fold_in(jax.random.key(config.seed), 1)
        found['random'] = search.init(key, k, method='random', groups=groups, **common)
    return found


def parse_metric(text: str) -> dict[str, float]:
    """'fd_lenet+100*kd_lenet' -> {'fd_lenet': 1, 'kd_lenet': 100}; '' -> {}."""
    found = {}
    for term in text.split('+') if text else ():
        weight, _, name = term.rpartition('*')
        try:
            found[name.strip()] = float(weight or 1)
        except ValueError:
            raise UserError(
                f'config.budget.metric {text!r}: write metrics by their names, each perhaps with a '
                'weight before it, as fd_lenet+100*kd_lenet'
            ) from None
    return found
