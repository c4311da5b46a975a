"""What a config says, parsed once: a frozen dataclass for each section, with its defaults.

`parse_run` and `parse_search` turn a config (nested mappings, as `config.json` holds them) into
`RunSettings` and `SearchSettings`. Everything below the commands gets these and never the config.
A section that names a part (`model`, `objective`, `dataset`, ...) stays a mapping: it holds the
keyword arguments of that part's own factory, which checks them.

A key that a section lacks has its default. That is how run folders open that were written before the
key existed.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from cm_jax.errors import UserError, build_from, check_name

MAX_SEED = 2**31 - 1
Settings = TypeVar('Settings')

section = functools.partial(dataclasses.dataclass, frozen=True, kw_only=True)


def check_numbers(samples: int, seeds: Sequence[int], batch_size: int) -> None:
    """Raises UserError on numbers that no evaluation can be carried out with."""
    if samples < 2 or batch_size < 1:
        raise UserError(
            f'evaluation needs samples >= 2 and batch_size >= 1, got {samples} and {batch_size}'
        )
    if not seeds or len(set(seeds)) < len(seeds) or not 0 <= min(seeds) <= max(seeds) <= MAX_SEED:
        raise UserError(
            f'evaluation.seeds must be different numbers from 0 to {MAX_SEED}, got {tuple(seeds)}'
        )


@section()
class WeightsOf:
    """The sections `init_from` and `teacher`: weights of another run."""

    workdir: str = ''  # the run folder; '' is none
    step: int | None = None  # of its trajectory; None is the last one
    ema: str = ''  # '' the weights themselves, or an average of that run


@section()
class Loop:
    """The section `train`: how the training loop runs."""

    accumulate: int = 1  # micro-batches a step; the global batch stays the same
    weights: str = 'replicated'  # or 'fsdp': parameters split over the devices
    log_every: int = 50  # steps
    resume_every: int = 500  # steps between full checkpoints
    resume_keep: int = 2  # full checkpoints that are kept
    stop_after_skipped: int = 20  # non-finite steps in a row

    def __post_init__(self):
        for name in ('log_every', 'resume_every', 'resume_keep', 'stop_after_skipped'):
            if getattr(self, name) < 1:
                raise UserError(
                    f'config.train.{name} must be at least 1, got {getattr(self, name)}'
                )


@section()
class Trajectory:
    """The section `trajectory`: the snapshots of the weights that are kept, which LCSC combines."""

    start: int = 0  # first step of the window
    every: int = 500  # steps; the last step is always kept
    emas: bool = False  # with the averages (the last step always has them)

    def __post_init__(self):
        if self.every < 1:
            raise UserError(f'config.trajectory.every must be at least 1, got {self.every}')

    def due(self, step: int, last: int) -> bool:
        """Returns whether `step` is kept: start, start + every, start + 2 every, ... and the last."""
        return step == last or (step >= self.start and (step - self.start) % self.every == 0)


@section()
class Sampling:
    """The section `sampling`: pictures during training, and the defaults of `sample`."""

    sampler: str = 'onestep'
    ema: str = ''  # '' the weights themselves, or an average of the run
    count: int = 64  # pictures
    every: int = 1000  # steps

    def __post_init__(self):
        if self.every < 1 or self.count < 1:
            raise UserError(
                f'config.sampling.every and count must be at least 1, got {self.every} and {self.count}'
            )


@section()
class Evaluation:
    """The section `evaluation`: how weights are scored.

    Each seed is a stream of noise of its own, and gives one score of `samples` samples. The score that
    is shown is their mean, with their standard deviation beside it.
    """

    extractor: str = 'lenet_digits'  # or 'inception', for FID, or 'dinov2_vitl14'
    weights: str = ''  # the file of the weights of an extractor that is not packaged
    samplers: tuple[str, ...] = ('onestep',)
    samples: int = 5000  # for each seed
    seeds: tuple[int, ...] = (1000, 1001, 1002)
    batch_size: int = 500
    reference: str = 'train'  # split of the data set, or an .npz file of statistics

    def __post_init__(self):
        check_numbers(self.samples, self.seeds, self.batch_size)


@section()
class RunSettings:
    """A training run. The comment beside a mapping names the factory whose arguments it holds."""

    seed: int = 0
    steps: int | None = None  # optimiser steps
    batch_size: int = 128  # the global batch: over all devices, processes and micro-batches
    class_conditional: bool = False  # give the network the labels
    ema_rates: tuple[float, ...] = (0.999,)  # averages kept; every artefact says which it came from
    ema_sigma_rels: tuple[float, ...] = ()  # power-function averages beside them: core.ema
    dataset: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: {'source': 'digits', 'split': 'train'}
    )  # data.open_source
    process: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: {'name': 've', 't_min': 0.002, 't_max': 80.0}
    )  # core.process.build
    model: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: {'name': 'song_unet'}
    )  # models.build
    prior: Mapping[str, Any] = dataclasses.field(
        default_factory=dict
    )  # models.build_prior: in flow and catch_up; {} is independent noise
    objective: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: {'name': 'edm'}
    )  # objectives.build
    optimizer: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: {'name': 'adam', 'learning_rate': 1e-3}
    )  # training.optim.make
    init_from: WeightsOf = WeightsOf()  # another run's weights to start from
    teacher: WeightsOf = WeightsOf()  # frozen weights, where the objective has a teacher
    lpips: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: {'network': 'vgg', 'features': '', 'heads': '', 'pooling': 'max'}
    )  # weights.lpips.load, where objective.distance is 'lpips'
    train: Loop = Loop()
    trajectory: Trajectory = Trajectory()
    sampling: Sampling = Sampling()
    evaluation: Evaluation = Evaluation()


@section()
class Basis:
    """The section `basis` of a search: the snapshots of a run that are combined."""

    workdir: str = ''  # of the training run
    start: int = 0  # first step of the window
    stop: int | None = None  # its last step; None is the last snapshot
    every: int = 1  # takes every so many-th snapshot, the last one always
    ema: str = ''  # '' the weights themselves, or an average that the trajectory holds
    groups: tuple[str, ...] = ()  # patterns of weights with coefficients of their own: lcsc.space
    storage: str = 'device'  # where the snapshots lie, or 'host', 'disk': lcsc.storage
    dtype: str = 'float32'  # or 'bfloat16': half the memory


@section()
class Budget:
    """The section `budget` of a search: how many candidates it scores, how, and on what noise."""

    sampler: str = 'onestep'
    metric: str = (
        ''  # '' the extractor's Fréchet distance; or 'fd_lenet+100*kd_lenet': lcsc.criterion
    )
    generations: int = 125  # after the first, which scores the profiles; 0 scores these alone
    samples: int = 5000  # a candidate
    batch_size: int = 500
    seed: int = 10  # of the search noise
    finalists: int = 20  # ranked again, by the mean over the seeds of selection noise
    selection_seeds: tuple[int, ...] = (20, 21, 22)

    def __post_init__(self):
        if self.samples < 2 or self.batch_size < 1 or self.samples % self.batch_size:
            raise UserError(
                f'config.budget.samples {self.samples} must be at least 2 and a multiple of the '
                f'batch_size {self.batch_size}'
            )
        if self.generations < 0 or self.finalists < 1 or not self.selection_seeds:
            raise UserError(
                'config.budget.generations must be at least 0, finalists at least 1, and '
                f'selection_seeds must hold one: got {self.generations}, {self.finalists}, '
                f'{self.selection_seeds}'
            )


@section()
class Controls:
    """The section `controls` of a search: what LCSC is compared with beside the run's averages."""

    random: bool = True  # a random search with as many candidates
    posthoc: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.25)  # sigma_rel of post-hoc averages
    landscape: int = 0  # n: the plane through three snapshots on a grid of n x n


@section()
class SearchSettings:
    """A search. The comment beside a mapping names the factory whose arguments it holds."""

    seed: int = 0  # of the search's own choices
    basis: Basis = Basis()
    search: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: {
            'method': 'evolution',  # or 'cma_es', 'random'
            'population': 16,  # candidates a generation
            'scale': 0.065,  # of a step in a coefficient, at 20 snapshots
            'ema_rates': (),  # of the EMA profiles that it starts from; () spreads eight
        }
    )  # lcsc.ask_tell.init
    evolution: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: {
            'parents': 10,
            'crossover': 0.3,
            'blend': 0.5,
            'first': 0.6,
            'mutation': 0.25,
            'touch': 0.25,
        }
    )  # the rest of lcsc.evolution.Settings: for method 'evolution'
    budget: Budget = Budget()
    controls: Controls = Controls()
    evaluation: Evaluation = Evaluation()  # of the report: noise that nothing was chosen by


def parse_run(config: Mapping[str, Any]) -> RunSettings:
    """Returns the settings of a training run. Raises UserError, by name, on what is wrong."""
    return _parse(config, RunSettings)


def parse_search(config: Mapping[str, Any]) -> SearchSettings:
    """Returns the settings of a search. Raises UserError, by name, on what is wrong."""
    return _parse(config, SearchSettings)


def _parse(config: Mapping[str, Any], settings: type[Settings]) -> Settings:
    fields = {field.name: field.type for field in dataclasses.fields(settings)}
    parsed = {}
    for name, value in config.items():
        check_name(f'key config.{name}', name, fields)
        if dataclasses.is_dataclass(fields[name]):
            value = {key: _tuple(entry) for key, entry in value.items()}
            parsed[name] = build_from(name, fields[name], value)
        else:
            parsed[name] = dict(value or {}) if isinstance(value, Mapping) else _tuple(value)
    return settings(**parsed)


def _tuple(value: Any) -> Any:
    """JSON turns tuples into lists; this turns them back."""
    return tuple(value) if isinstance(value, list) else value
