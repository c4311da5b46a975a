"""Configs: the sections that every run has, and a run folder's record of its own."""

import difflib
import json
from collections.abc import Mapping
from typing import Any

from etils import epath
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from cm_jax.errors import UserError
from cm_jax.logs import write_text

CONFIG = 'config.json'
ORIGIN = 'origin.json'  # stands in a run folder whose weights were not made by training


def weights_of() -> ConfigDict:
    """Weights of another run (transfer.WeightsOf): none, until a workdir is set."""
    c = ConfigDict()
    c.workdir = ''
    c.step = placeholder(int)  # None is the last one
    c.ema = ''  # '' the weights themselves, or an average of that run
    return c


def base_config() -> ConfigDict:
    """The sections of a training run. Each is the keyword arguments of the factory named beside it.

    A file in configs/ starts from this and sets what is its own; `model`, `objective` and `dataset`
    take further keys, those of the network, the objective and the data source that they name; so does
    `prior`.
    """
    c = ConfigDict()
    c.seed = 0
    c.steps = placeholder(int)  # optimiser steps
    c.batch_size = 128  # the global batch: over all devices, processes and micro-batches
    c.class_conditional = False  # give the network the labels
    c.ema_rates = (0.999,)  # averages kept; every artefact says which one it came from
    c.ema_sigma_rels = ()  # power-function averages kept beside them, e.g. (0.05, 0.1): core.ema
    c.dataset = ConfigDict({'source': 'digits', 'split': 'train'})  # data.open_source
    c.process = ConfigDict({'name': 've', 't_min': 0.002, 't_max': 80.0})  # core.process.build
    c.model = ConfigDict({'name': 'song_unet'})  # models.build
    c.prior = ConfigDict()  # models.build_prior: in flow and catch_up; {} is independent noise
    c.objective = ConfigDict({'name': 'edm'})  # objectives.base.build
    c.optimizer = ConfigDict({'name': 'adam', 'learning_rate': 1e-3})  # optim.make
    c.init_from = weights_of()  # another run's weights to start from
    c.teacher = weights_of()  # frozen weights, where the objective has a teacher
    c.lpips = ConfigDict()  # weights.lpips.load, where objective.distance is 'lpips'
    c.lpips.network = 'vgg'  # or 'alex'
    c.lpips.features = ''  # file of torchvision's weights
    c.lpips.heads = ''  # file of the lpips package's
    c.lpips.pooling = 'max'  # or 'average'
    c.train = ConfigDict()  # train_setup.Loop
    c.train.accumulate = 1  # micro-batches a step; the global batch stays the same
    c.train.weights = 'replicated'  # or 'fsdp': parameters split over the devices
    c.train.log_every = 50  # steps
    c.train.resume_every = 500  # steps between full checkpoints
    c.train.resume_keep = 2
    c.train.stop_after_skipped = 20  # non-finite steps in a row
    c.trajectory = ConfigDict()  # train_setup.Trajectory: the snapshots that LCSC combines
    c.trajectory.start = 0  # first step of the window
    c.trajectory.every = 500  # steps; the last step is always there
    c.trajectory.emas = False  # with the averages (the last step always has them)
    c.sampling = (
        ConfigDict()
    )  # train_setup.Sampling: pictures during training, defaults of `sample`
    c.sampling.sampler = 'onestep'
    c.sampling.ema = ''
    c.sampling.count = 64
    c.sampling.every = 1000  # steps
    c.evaluation = ConfigDict()  # scores.Evaluation
    c.evaluation.extractor = 'lenet_digits'  # or 'inception', for FID, or 'dinov2_vitl14'
    c.evaluation.weights = ''  # file of the weights of those two
    c.evaluation.samplers = ('onestep',)
    c.evaluation.samples = 5000  # for each seed
    c.evaluation.seeds = (1000, 1001, 1002)
    c.evaluation.batch_size = 500
    c.evaluation.reference = 'train'  # split of the dataset, or an .npz file of statistics
    return c


def search_config() -> ConfigDict:
    """The sections of a search (`python -m cm_jax.search`), each with what reads it."""
    c = ConfigDict()
    c.seed = 0  # of the search's own choices
    c.basis = ConfigDict()  # search_job.Basis: the snapshots that are combined
    c.basis.workdir = ''  # of the training run
    c.basis.start = 0  # first step of the window
    c.basis.stop = placeholder(int)  # its last step; None is the last snapshot
    c.basis.every = 1  # takes every so many-th snapshot, the last one always
    c.basis.ema = ''  # '' the weights themselves, or an average that the trajectory holds
    c.basis.groups = ()  # patterns of weights with coefficients of their own: lcsc.space.build
    c.basis.storage = 'device'  # where the snapshots lie, or 'host', 'disk': lcsc.storage
    c.basis.dtype = 'float32'  # or 'bfloat16': half the memory
    c.search = ConfigDict()  # lcsc.search.init
    c.search.method = 'evolution'  # or 'cma_es', 'random'
    c.search.population = 16  # candidates a generation
    c.search.scale = 0.065  # of a step in a coefficient, at 20 snapshots
    c.search.ema_rates = ()  # of the EMA profiles that it starts from; () spreads eight
    c.evolution = ConfigDict()  # the rest of lcsc.evolution.Settings: for method 'evolution'
    c.evolution.parents = 10
    c.evolution.crossover = 0.3
    c.evolution.blend = 0.5
    c.evolution.first = 0.6
    c.evolution.mutation = 0.25
    c.evolution.touch = 0.25
    c.budget = ConfigDict()  # search_job.Budget
    c.budget.sampler = 'onestep'
    c.budget.metric = ''  # '' the extractor's Fréchet distance; 'fd_lenet+100*kd_lenet'
    c.budget.generations = 125  # after the profiles; 0 scores these alone
    c.budget.samples = 5000  # a candidate
    c.budget.batch_size = 500
    c.budget.seed = 10  # of the search noise
    c.budget.finalists = 20  # ranked again, by the mean over the seeds of selection noise
    c.budget.selection_seeds = (20, 21, 22)
    c.controls = ConfigDict()  # search_report.Controls
    c.controls.random = True  # a random search with as many candidates
    c.controls.posthoc = (0.05, 0.1, 0.15, 0.2, 0.25)  # sigma_rel, where the run stored averages
    c.controls.landscape = 0  # n: the plane through three snapshots on a grid of n x n
    c.evaluation = base_config().evaluation  # of the report: noise that nothing was chosen by
    return c


def to_plain(config: Any) -> dict[str, Any]:
    """A config as plain JSON values (tuples become lists)."""
    return json.loads(json.dumps(config.to_dict()))


def flatten(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """{'a': {'b': 1}} -> {'a.b': 1}."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f'{prefix}{key}.')
        else:
            flat[prefix + key] = value
    return flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One text a differing key: 'batch_size: 64 there, 128 here'."""
    old, new = (json.loads(json.dumps(flatten(config))) for config in (old, new))
    absent = 'absent'
    return [
        f'{key}: {old.get(key, absent)!r} there, {new.get(key, absent)!r} here'
        for key in sorted(old.keys() | new.keys())
        if old.get(key, absent) != new.get(key, absent)
    ]


def claim_workdir(workdir: epath.Path, config: Mapping[str, Any], name: str = CONFIG) -> bool:
    """Makes sure that `workdir` is new, or holds this very config; True if it is new.

    Writes nothing. A config that was cut short in its writing is none: the folder is new. Raises
    UserError, naming the differing keys, if another run lives there.
    """
    path = workdir / name
    if path.exists():
        differing = differences(json.loads(path.read_text()), config)
        if differing:
            raise UserError(
                f'{workdir} holds another run; differing keys: {"; ".join(differing)}. Choose '
                'another --workdir, or start afresh with --fresh (the old folder is kept aside)'
            )
        return False
    if workdir.exists() and any(p.name != f'{name}.writing' for p in workdir.iterdir()):
        raise UserError(
            f'{workdir} is not empty and holds no {name}: it is no run of this command. Choose '
            'another --workdir'
        )
    return True


def set_aside(workdir: epath.Path) -> epath.Path | None:
    """Renames an existing run folder to the first free `<name>.old<n>`; None if there is none."""
    if not workdir.exists():
        return None
    n = next(n for n in range(1, 10**6) if not (workdir.parent / f'{workdir.name}.old{n}').exists())
    return workdir.rename(workdir.parent / f'{workdir.name}.old{n}')


def write_config(workdir: epath.Path, config: Mapping[str, Any], name: str = CONFIG) -> None:
    """Writes a resolved config into a run folder, making the folder."""
    workdir.mkdir(parents=True, exist_ok=True)
    write_text(workdir / name, json.dumps(config, indent=1) + '\n')


def read_config(workdir: epath.Path, name: str = CONFIG) -> dict[str, Any]:
    """The resolved config of a run folder. Raises UserError if it is no run folder."""
    path = workdir / name
    if not path.exists():
        near = [p.name for p in workdir.parent.iterdir()] if workdir.parent.exists() else []
        close = difflib.get_close_matches(workdir.name, near, n=1)
        hint = f'; did you mean {workdir.parent / close[0]}?' if close else ''
        raise UserError(f'{workdir} is no run folder: it has no {name}{hint}')
    return json.loads(path.read_text())
