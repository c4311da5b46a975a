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

from cm_jax import checkpoint, data, models, sharding
from cm_jax import config as configs
from cm_jax.core import ema as averages
from cm_jax.core import process as processes
from cm_jax.core import tree
from cm_jax.core.process import Process
from cm_jax.data import Source, card
from cm_jax.errors import UserError, call, check_name
from cm_jax.logs import read_json_lines, write_text
from cm_jax.metrics import named
from cm_jax.metrics.features import round_uint8
from cm_jax.models import Model, lenet
from cm_jax.objectives import base
from cm_jax.objectives.base import Objective
from cm_jax.scores import (
    Evaluation,
    Reference,
    Subject,
    build_sampler,
    check_numbers,
    make_generator,
    reference,
)
from cm_jax.types import DenoiseFn, Distance, Extractor, NetFn, Params
from cm_jax.weights import inception
from cm_jax.weights.lpips import distance_of

RAW = ''  # the weights themselves, no average
POSTHOC = 'posthoc'  # 'posthoc0.07': the power-function average made of those that are stored
MAX_ERROR = 0.05  # of its profile, relative; beyond it an average is refused
CARD = 'data_card.json'
TUNED = 'tuned_levels.json'  # a list: one record a search of tune_levels
STRAIGHTNESS = 'straightness.jsonl'
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


def wire(
    config: Any,
    image_shape: tuple[int, int, int],
    data_classes: int,
    frozen: 'Frozen | None' = None,
) -> Parts:
    """Builds process, network and objective. Raises UserError on any setting that is wrong.

    `frozen`: what training needs beside them; None if only the denoiser will be used.
    """
    if config.class_conditional and not data_classes:
        raise UserError('config.class_conditional is True, and the data has no labels')
    num_classes = data_classes if config.class_conditional else 0
    process = call('process', processes.build, config.process)
    model, prior = build_networks(config, image_shape, num_classes)
    beside = (frozen.teacher_denoise, frozen.lpips) if frozen else (None, None)
    objective = base.build(config.objective, model.net, process, *beside, prior)
    if objective.heads != model.heads:
        raise UserError(
            f'objective {config.objective.name!r} needs config.model.heads = {objective.heads}, got '
            f'{model.heads}'
        )
    if objective.augment_dim not in (0, model.augment_dim):
        raise UserError(
            f'config.objective.augment = {config.objective.augment} needs a network that is told of '
            f'it: config.model.augment_dim = {objective.augment_dim}, got {model.augment_dim}'
        )
    subject = Subject(objective.denoise, process, image_shape, num_classes)
    return Parts(process, model, objective, subject)


def prior_settings(config: Any) -> dict[str, Any]:
    """The `prior` section; {} where there is none or it names no network."""
    settings = dict(config.get('prior') or {})  # runs from before priors lack the section
    return settings if settings.get('name') else {}


def build_networks(
    config: Any, image_shape: tuple[int, int, int], num_classes: int
) -> tuple[Model, NetFn | None]:
    """The model of a config, and the network of its prior: None, or one whose parameters are the
    model's, too (`models.side_by_side`)."""
    model, prior = models.build(config.model, image_shape, num_classes), prior_settings(config)
    if not prior:
        return model, None
    model, others = models.side_by_side(model, prior=models.build_prior(prior, image_shape))
    return model, others['prior']


def net_params(config: Any, params: Params) -> Params:
    """Of a run's parameters, those of `config.model`."""
    return params[models.NET] if prior_settings(config) else params


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
    check_name('extractor', parsed.extractor, [inception.NAME, *lenet.names()])
    if bool(parsed.weights) != (parsed.extractor == inception.NAME):
        raise UserError(
            f'config.evaluation.weights is {parsed.weights!r}: the extractor {inception.NAME!r}, and '
            f'no other, takes the file of its weights there; the extractor is {parsed.extractor!r}'
        )
    return parsed


def open_reference(
    config: Any, ev: Evaluation, metrics: Sequence[str] = ()
) -> tuple[Extractor, Reference]:
    """The extractor of an evaluation, and its reference split: what `metrics` need of it.

    Raises UserError on metrics that the extractor does not have, see metrics.named.
    """
    if ev.extractor == inception.NAME:
        extractor = inception.load(ev.weights)
    else:
        extractor = lenet.extractor(ev.extractor)
    source = open_data(config, ev.reference)
    named.check(extractor, metrics, ev.samples, source.count)
    keep = bool(named.beyond(extractor, metrics))
    return extractor, reference(source, extractor, ev.batch_size, keep)


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

    def check_ema(self, step: int, ema: str) -> None:
        """Raises UserError if an average is neither stored at a step nor can be made there."""
        if ema.startswith(POSTHOC):
            self.posthoc(step, ema)
        elif ema != RAW:
            check_name(f'average of step {step} in {self.workdir}', ema, self.emas(step))

    def params(self, step: int | None = None, ema: str = RAW) -> Params:
        """Weights of a step (None: the last) as nested dicts of numpy arrays.

        `ema` is one of `emas(step)`, or 'posthoc' and a sigma_rel: see `posthoc`.
        """
        step = self.step(step)
        if ema.startswith(POSTHOC):
            parts = self.posthoc(step, ema)
            stored = (self.params(part.step, part.ema) for part in parts)
            return tree.weighted_sum([part.coefficient for part in parts], stored)
        self.check_ema(step, ema)
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
        sampler = build_sampler(spec, self.parts.subject)
        generate = make_generator(self.parts.subject, sampler, mesh, count, round_uint8)
        return np.round(127.5 * generate(params, seed, 0) + 127.5).astype(np.uint8)

    def tuned(self) -> list[dict[str, Any]]:
        """The records of tuned_levels.json, the newest last; [] where there are none."""
        path = self.workdir / TUNED
        return json.loads(path.read_text()) if path.exists() else []

    def sampler_spec(self, spec: str, step: int, ema: str) -> str:
        """The sampler that `spec` stands for: 'tuned', or 'tuned@n' with n levels, is what
        tune_levels found last for these weights, all else itself. Raises UserError if it found none.
        """
        name, _, count = spec.partition('@')
        if name != 'tuned':
            return spec
        found = {
            str(record['levels']): record['sampler']
            for record in self.tuned()
            if (record['step'], record['ema']) == (step, ema)
        }
        if not count and len(found) == 1:
            return next(iter(found.values()))
        if found:
            check_name('sampler', spec, [f'tuned@{n}' for n in found])
            return found[count]
        raise UserError(
            f'sampler {spec!r}: no levels were tuned for these weights; this tunes them: python -m '
            f"cm_jax.tune_levels --workdir={self.workdir} --step={step} --ema='{ema}'"
        )

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


class WeightsOf(NamedTuple):
    """Weights of another run: the sections `init_from` and `teacher`; workdir '' is none."""

    workdir: str
    step: int | None
    ema: str


def initial_weights(config: Any, template: Params, image_shape: tuple) -> Params | None:
    """The weights of `config.init_from`, or None. Raises UserError, by name, if they do not fit.

    A prior that was learnt there and is not learnt here is left behind.
    """
    init = call('init_from', WeightsOf, config.init_from)
    if not init.workdir:
        return None
    run = open_run(init.workdir)
    theirs = weights_meaning(run.config, run.card['image_shape'])
    leaves_prior = not prior_settings(config)
    if leaves_prior:
        theirs['prior'] = {}
    differing = configs.differences(theirs, weights_meaning(config, image_shape))
    if differing:
        raise UserError(f'config.init_from {init.workdir} does not fit: {"; ".join(differing)}')
    params = run.params(init.step, init.ema)
    if leaves_prior:
        params = net_params(run.config, params)
    check_tree(params, template, f'weights of {init.workdir}')
    return params


class Frozen(NamedTuple):
    """What an objective learns from and with: a teacher's D, LPIPS, and the weights of both."""

    teacher_denoise: DenoiseFn | None
    lpips: Distance | None
    weights: Params  # the `teacher` of the objective's loss


def open_frozen(config: Any, image_shape: tuple[int, int, int]) -> Frozen:
    """The teacher and the distance of a config, as far as it has them.

    Raises UserError where one is missing, or the teacher's process, images or labels differ.
    """
    denoise, weights = _open_teacher(config, image_shape)
    if config.objective.get('distance') != base.LPIPS:
        return Frozen(denoise, None, weights)
    lpips = distance_of(config.lpips)
    return Frozen(denoise, lpips, (weights, lpips.params))


def _open_teacher(
    config: Any, image_shape: tuple[int, int, int]
) -> tuple[DenoiseFn | None, Params]:
    of = call('teacher', WeightsOf, config.teacher)
    if not of.workdir:
        if base.takes_teacher(config.objective.name):
            raise UserError(
                f'objective {config.objective.name!r} learns from a teacher: set '
                'config.teacher.workdir to its run folder'
            )
        return None, ()
    if config.objective.get('guidance', 1) != 1 and not config.class_conditional:
        raise UserError('config.objective.guidance needs classes: set config.class_conditional')
    run = open_run(of.workdir)
    differing = configs.differences(
        *(
            {'process': dict(c.process), 'class_conditional': c.class_conditional, 'images': shape}
            for c, shape in ((run.config, run.card['image_shape']), (config, image_shape))
        )
    )
    if differing:
        raise UserError(f'config.teacher {of.workdir} does not fit: {"; ".join(differing)}')
    return run.parts.objective.denoise, run.params(of.step, of.ema)


OF_TRAINING = ('dropout', 'dropout_resolution', 'label_dropout', 'dtype', 'remat')


def weights_meaning(config: Any, image_shape: Sequence[int]) -> dict[str, Any]:
    """What must be equal for weights of one run to mean the same in another.

    The networks without what only training has, the preconditioning (which on rectified flow has no
    settings), the process, the shape of the images and whether there are labels.
    """
    networks = {'model': config.model, 'prior': prior_settings(config)}
    preconditioning = {}
    if config.process.name != 'rf':
        preconditioning['sigma_data'] = config.objective.sigma_data
    return {
        **{
            section: {k: v for k, v in settings.items() if k not in OF_TRAINING}
            for section, settings in networks.items()
        },
        **preconditioning,
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
