"""Open a run folder: its config, steps, weights, samples, metrics. What notebooks use.

run = open_run('runs/quickstart/ect')
run.steps()                                  # the trajectory
weights = run.params(step=None, ema='0.99')  # numpy, no device mesh needed; or 'posthoc0.07'
images = run.sample(weights, 'multistep@80,0.8', count=64, seed=0)
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from cm_jax import checkpoint, data, models, samplers, sharding
from cm_jax import config as configs
from cm_jax.core import ema as averages
from cm_jax.core import process as processes
from cm_jax.core import tree
from cm_jax.core.process import Process
from cm_jax.data import Source, card
from cm_jax.errors import UserError, call, check_name
from cm_jax.logs import read_json_lines, write_text
from cm_jax.metrics.features import round_uint8
from cm_jax.models import Model, lenet
from cm_jax.objectives import base
from cm_jax.objectives.base import Objective
from cm_jax.scores import Evaluation, Reference, Subject, check_numbers, make_generator, reference
from cm_jax.types import Extractor, Params

RAW = ''  # the weights themselves, no average
POSTHOC = 'posthoc'  # 'posthoc0.07': the power-function average made of those that are stored
MAX_ERROR = 0.05  # of its profile, relative; beyond it an average is refused
CARD = 'data_card.json'
TRAJECTORY = 'trajectory'
RESUME = 'resume'


def item_name(ema: str) -> str:
    """The name in a trajectory step of an average, or of the weights themselves ('')."""
    return f'ema_{ema}' if ema else 'params'


class Parts(NamedTuple):
    """What a config describes, built."""

    process: Process
    model: Model
    objective: Objective
    subject: Subject


def wire(config: Any, image_shape: tuple[int, int, int], data_classes: int) -> Parts:
    """Builds process, network and objective. Raises UserError on any setting that is wrong."""
    if config.class_conditional and not data_classes:
        raise UserError('config.class_conditional is True, and the data has no labels')
    num_classes = data_classes if config.class_conditional else 0
    process = call('process', processes.build, config.process)
    model = models.build(config.model, image_shape, num_classes)
    objective = base.build(config.objective, model.net, process)
    subject = Subject(objective.denoise, process, image_shape, num_classes)
    return Parts(process, model, objective, subject)


def open_data(config: Any, split: str | None = None) -> Source:
    """The data source of a config, at its own split or another one."""
    settings = dict(config.dataset)
    if split is not None:
        settings['split'] = split
    if 'source' not in settings or 'split' not in settings:
        raise UserError('config.dataset lacks source or split')
    return data.open_source(**settings)


def evaluation(config: Any) -> Evaluation:
    """The `evaluation` section, checked."""
    parsed = call('evaluation', Evaluation, config.evaluation)
    check_numbers(parsed.samples, parsed.seeds, parsed.batch_size)
    check_name('extractor', parsed.extractor, lenet.names())
    return parsed


def open_reference(config: Any, ev: Evaluation) -> tuple[Extractor, Reference]:
    """The extractor of an evaluation and the moments of its reference split."""
    extractor = lenet.extractor(ev.extractor)
    return extractor, reference(open_data(config, ev.reference), extractor, ev.batch_size)


class Part(NamedTuple):
    """A term of a post-hoc average: the coefficient of the stored average `ema` of `step`."""

    step: int
    ema: str
    coefficient: float


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder; made by `open_run`. Reads only."""

    workdir: epath.Path
    config: ConfigDict
    card: Mapping[str, Any]  # of the data that the weights were trained on
    parts: Parts

    def steps(self) -> list[int]:
        """The steps of the trajectory, ascending."""
        return checkpoint.list_steps(self.workdir / TRAJECTORY)

    def step(self, step: int | None = None) -> int:
        """`step`, or the last one if None. Raises UserError if it is not there."""
        steps = self.steps()
        if not steps:
            raise UserError(f'{self.workdir} has no trajectory step yet: it was not trained')
        if step is None:
            return steps[-1]
        if step not in steps:
            raise UserError(f'{self.workdir} has no step {step}; {_listed(steps)}')
        return step

    def emas(self, step: int | None = None) -> list[str]:
        """The averages stored at a step."""
        folder = self.workdir / TRAJECTORY / str(self.step(step))
        return sorted(p.name[len('ema_') :] for p in folder.iterdir() if p.name.startswith('ema_'))

    def params(self, step: int | None = None, ema: str = RAW) -> Params:
        """Weights of a step (None: the last) as nested dicts of numpy arrays.

        `ema` is one of `emas(step)`, or 'posthoc' and a sigma_rel: see `posthoc`.
        """
        step = self.step(step)
        if ema.startswith(POSTHOC):
            parts = self.posthoc(step, ema)
            stored = (self.params(part.step, part.ema) for part in parts)
            return tree.weighted_sum([part.coefficient for part in parts], stored)
        if ema != RAW:
            check_name(f'average of step {step} in {self.workdir}', ema, self.emas(step))
        return checkpoint.load(self.workdir / TRAJECTORY, step, item_name(ema))

    def posthoc(self, step: int, ema: str) -> list[Part]:
        """What `ema`, e.g. 'posthoc0.07', of `step` is the sum of: all power-function averages that
        the trajectory holds up to there, with their coefficients (`core.ema.posthoc`).

        Raises UserError if there are none, or if they do not give that average within MAX_ERROR.
        """
        try:
            sigma_rel = float(ema.removeprefix(POSTHOC))
        except ValueError:
            raise UserError(f'{POSTHOC} takes a number, as in {POSTHOC}0.07; got {ema!r}') from None
        averages.sigma_rel_to_gamma(sigma_rel)  # refuses a number out of range
        found = [
            (s, name, float(name.removeprefix(averages.POWER)))
            for s in self.steps()
            if 0 < s <= step
            for name in self.emas(s)
            if name.startswith(averages.POWER)
        ]
        if not found:
            raise UserError(
                f'{ema} is made of stored power-function averages, and {self.workdir} has none up to '
                f'step {step}: it takes config.ema_sigma_rels, e.g. (0.05, 0.1), and '
                'config.trajectory.emas=True in training'
            )
        steps, names, stored = zip(*found)
        coefficients, error = averages.posthoc(steps, stored, step, sigma_rel)
        if error > MAX_ERROR:
            raise UserError(
                f'{ema} of step {step} is out of the range of the {len(found)} averages stored '
                f'({", ".join(sorted(set(names)))}; steps {steps[0]} to {steps[-1]}): its profile '
                f'would be {error:.0%} off, over {MAX_ERROR:.0%}. Choose a sigma_rel nearer to '
                'theirs; in training, config.trajectory.emas=True and a smaller '
                'config.trajectory.every widen the range'
            )
        return [Part(s, name, float(c)) for s, name, c in zip(steps, names, coefficients)]

    def sample(self, params: Params, spec: str, count: int, seed: int = 0) -> np.ndarray:
        """`count` samples with the sampler written `spec`: uint8 [count,H,W,C]."""
        mesh = sharding.make_mesh()
        sampler = samplers.build(spec, self.parts.process)
        generate = make_generator(self.parts.subject, sampler, mesh, count, round_uint8)
        return np.round(127.5 * generate(params, seed, 0) + 127.5).astype(np.uint8)

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl."""
        return read_json_lines(self.workdir / 'metrics.jsonl')

    def scores(self) -> list[dict[str, Any]]:
        """The rows of scores.jsonl."""
        return read_json_lines(self.workdir / 'scores.jsonl')


def open_run(workdir: str | epath.Path) -> Run:
    """Opens a run folder. Raises UserError if it is none or its config is not one of ours."""
    workdir = epath.Path(workdir)
    config = ConfigDict(configs.read_config(workdir))
    path = workdir / CARD
    if not path.exists():
        raise UserError(f'{workdir} has no {CARD}: its training did not start')
    stored = json.loads(path.read_text())
    parts = wire(config, tuple(stored['image_shape']), stored['num_classes'])
    return Run(workdir, config, stored, parts)


def store_card(workdir: epath.Path, source: Source) -> dict[str, Any]:
    """The card of a source, checked against those stored with the data and in the run folder.

    Raises UserError naming what differs. Stores it in the run folder if there is none.
    """
    if source.card is not None:
        card.check(source.card, source)
    path = workdir / CARD
    if path.exists():
        stored = json.loads(path.read_text())
        card.check(stored, source)
        return stored
    found = card.make(source)
    write_text(path, json.dumps(found, indent=1) + '\n')
    return found


class InitFrom(NamedTuple):
    """A config's `init_from` section: another run's weights to start from; workdir '' is none."""

    workdir: str
    step: int | None
    ema: str


def initial_weights(config: Any, template: Params, image_shape: tuple) -> Params | None:
    """The weights of `config.init_from`, or None. Raises UserError, by name, if they do not fit."""
    init = call('init_from', InitFrom, config.init_from)
    if not init.workdir:
        return None
    run = open_run(init.workdir)
    theirs = weights_meaning(run.config, run.card['image_shape'])
    differing = configs.differences(theirs, weights_meaning(config, image_shape))
    if differing:
        raise UserError(f'config.init_from {init.workdir} does not fit: {"; ".join(differing)}')
    params = run.params(init.step, init.ema)
    check_tree(params, template, f'weights of {init.workdir}')
    return params


def weights_meaning(config: Any, image_shape: Sequence[int]) -> dict[str, Any]:
    """What must be equal for weights of one run to mean the same in another.

    The network without its dropout and compute dtype, the preconditioning, the process, the shape
    of the images and whether there are labels.
    """
    return {
        'model': {k: v for k, v in config.model.items() if k not in ('dropout', 'dtype')},
        'sigma_data': config.objective.sigma_data,
        'process': dict(config.process),
        'class_conditional': config.class_conditional,
        'image_shape': list(image_shape),
    }


def check_tree(params: Params, template: Params, what: str) -> None:
    """Raises UserError naming the first weight that is missing, unexpected or of another shape."""
    found, wanted = (
        {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(tree)}
        for tree in (params, template)
    )
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise UserError(
                f'{what}: {name} is {found.get(name, "missing")}, the network has '
                f'{wanted.get(name, "no such weight")}'
            )


def _listed(steps: list[int]) -> str:
    if len(steps) <= 12:
        return f'there are {", ".join(map(str, steps))}'
    return f'there are {len(steps)}: {", ".join(map(str, steps[:4]))}, ..., {steps[-1]}'
