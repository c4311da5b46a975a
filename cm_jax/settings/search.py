"""The settings of a search over snapshots; cm_jax.settings says what a settings class is."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

from cm_jax.bounds import BatchSize, Count, Interval, Natural, Positive, Samples
from cm_jax.errors import UserError, check_name
from cm_jax.settings.run import Evaluation, Seed, SigmaRel, mapping_field


@dataclasses.dataclass(frozen=True, kw_only=True)
class Basis:
    """The section `basis` of a search: which snapshots of a training run are combined, and how."""

    # The folder of the training run; or of several, separated by commas, that have the same network and
    # data (cm_jax.lcsc.snapshots). Of several, each has the window that follows.
    workdir: str = ''
    # The window: only snapshots from training step `start` to training step `stop` are taken, both
    # included. A `stop` of None is the last snapshot.
    start: Natural = 0
    stop: Natural | None = None
    # Of these, every so many-th one is taken, counted back from the last, which is always taken. At
    # least two snapshots must remain, and of several runs one of each.
    every: Count = 1
    # Which average of the weights is combined, if the snapshots hold it, by its name, such as '0.999'.
    # '' is the weights themselves.
    ema: str = ''
    # Regular expressions over the names of the weights; each makes a group with coefficients of its
    # own. () is one group of all weights, 'top_level' one group for each top-level part of the network,
    # and 'leaves' one for each array of weights (cm_jax.lcsc.space).
    groups: tuple[str, ...] = ()
    # Where the snapshots are kept during the search: 'device' (fastest), 'host' or 'disk' (least
    # memory; cm_jax.lcsc.storage).
    storage: str = 'device'
    # The type of the numbers in which they are kept: 'float32', or 'bfloat16' for half the memory.
    dtype: str = 'float32'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """The section `budget` of a search: how many candidates are scored, how, and on what noise.

    A candidate is a set of coefficients. Every candidate is scored on the search noise; the best ones
    are scored again on the selection noise, and the winner there is the result. Neither noise may be
    that of `evaluation`.
    """

    # The sampler that a candidate's images are generated with.
    sampler: str = 'onestep'
    # What is minimised: '' is the extractor's Fréchet distance; else a metric, or a weighted sum of
    # several, such as 'fd_lenet+100*kd_lenet', also in the spaces of `evaluation.second`:
    # '0.09*fd_lenet+2*fd_pixel' (cm_jax.lcsc.criterion).
    metric: str = ''
    # What a weight of 1 is: 'given', one of the metric's own unit; or 'relative', the best value
    # that one of the averages which a search starts from has on search noise.
    units: str = 'given'
    # How many generations are searched after the first one, which scores the averages that a search
    # starts from. 0 scores these averages and nothing else. For the method 'gradient' they are its
    # steps, at least 1.
    generations: Natural = 125
    # How many images are generated for each candidate, or step of the method 'gradient': a multiple of
    # `batch_size`.
    samples: Samples = 5000
    # How many of them are generated at a time.
    batch_size: BatchSize = 500
    # The seed of the search noise.
    seed: Seed = 10
    # How many of the best candidates are ranked again on the selection noise.
    finalists: Count = 20
    # The seeds of the selection noise, at least one; a candidate's score there is its mean over them.
    selection_seeds: tuple[Seed, ...] = (20, 21, 22)

    def __post_init__(self) -> None:
        if self.samples % self.batch_size:
            raise UserError(
                f'config.budget.samples {self.samples} must be a multiple of the batch_size '
                f'{self.batch_size}'
            )
        check_name('config.budget.units', self.units, ('given', 'relative'))
        if not self.selection_seeds:
            raise UserError('config.budget.selection_seeds must hold one, got ()')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Controls:
    """The section `controls` of a search: what else its result is compared with.

    Always among them are the last weights of the run, the averages that it stored, and the best EMA
    profile and the uniform average over the snapshots.
    """

    # Whether a random search with as many candidates is made too.
    random: bool = True
    # How many lengths of windows of successive snapshots are scanned for the best plain average, each
    # at as many places: at most windows^2 averages (cm_jax.lcsc.baselines). 0 scans none.
    windows: Annotated[int, Interval('[0, 1000]')] = 5
    # The powers eta of the averages with a corrected bias (BEMA) to choose from. () is none.
    bema: tuple[Positive, ...] = (0.1, 0.2, 0.4)
    # The relative widths sigma_rel of the post-hoc averages to choose from. They are left out if the
    # run has not stored what they are made of: averages by `ema_sigma_rels`, in the snapshots by
    # `trajectory.emas`.
    posthoc: tuple[SigmaRel, ...] = (0.05, 0.1, 0.15, 0.2, 0.25)
    # With n > 0, n x n combinations of three snapshots are scored and drawn as a map; 0 is no map.
    landscape: Annotated[int, Interval('[0, 1000]')] = 0
    # The kinds of models that are scored for the report beside the result, such as ('last', 'ema*')
    # (cm_jax.lcsc.identity). () is all that there are, and ('lcsc',) the result alone.
    reported: tuple[str, ...] = ()


GRADIENT = {'learning_rate': 2.0, 'b1': 0.9, 'b2': 0.99, 'batch_size': None}
# What the keys that earlier versions did not have were in their searches.
EARLIER = {
    'controls': {'windows': 0, 'bema': (), 'reported': ()},
    'budget': {'units': 'given'},
    'gradient': GRADIENT,
    'evaluation': {'bytes': 'round'},
}


def earlier_search(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the stored config of a search with the keys that an earlier version did not write.

    They have the values with which a search does what it did then. (A config of today that leaves them
    out has their defaults.)
    """
    return {**config, **{name: keys | config.get(name, {}) for name, keys in EARLIER.items()}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """A search over the snapshots of a training run (LCSC)."""

    # Decides the candidates that the search proposes, and not the noise that they are scored on.
    seed: Seed = 0
    basis: Basis = Basis()
    # The method, and what several methods take: arguments of cm_jax.lcsc.ask_tell.init. `method` is
    # 'evolution', 'cma_es', 'random' or 'gradient'; `ema_rates` the decay rates, per snapshot, of
    # the averages that the search starts from, where () spreads eight. Not for 'gradient':
    # `population`, the candidates of a generation; `scale`, the standard deviation of a step in a
    # coefficient, at 20 snapshots.
    search: Mapping[str, Any] = mapping_field(
        method='evolution', population=16, scale=0.065, ema_rates=()
    )
    # What the method 'evolution' takes beside them: the other fields of cm_jax.lcsc.evolution.Settings.
    evolution: Mapping[str, Any] = mapping_field(
        parents=10, crossover=0.3, blend=0.5, first=0.6, mutation=0.25, touch=0.25
    )
    # What the method 'gradient' takes: the fields of cm_jax.lcsc.gradient.Settings but for the
    # steps, which are `budget.generations`; and `batch_size`, how many images go forward and back
    # together, which bounds the memory, a divisor of `budget.samples`; None is `budget.batch_size`.
    gradient: Mapping[str, Any] = mapping_field(**GRADIENT)
    budget: Budget = Budget()
    controls: Controls = Controls()
    # How the result and what it is compared with are scored in the end, on noise that nothing was
    # chosen by.
    evaluation: Evaluation = dataclasses.field(default_factory=Evaluation)

    @property
    def is_descent(self) -> bool:
        """Whether each candidate after the first ones is a step that has noise of its own."""
        return self.search['method'] == 'gradient'
