"""From a config to what it describes: process, networks, objective, data, evaluation."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cm_jax import data, models, references
from cm_jax.core import process as processes
from cm_jax.core.process import Process
from cm_jax.data import Source
from cm_jax.errors import UserError, call, check_name
from cm_jax.generate import Subject
from cm_jax.metrics import named
from cm_jax.models import Model, lenet
from cm_jax.objectives import base
from cm_jax.objectives.base import Objective
from cm_jax.scores import Evaluation, Reference, check_numbers, reference
from cm_jax.types import DenoiseFn, Distance, Extractor, NetFn, Params
from cm_jax.weights import dinov2, inception

# The extractors whose weights come in a file.
FROM_FILES: dict[str, Callable[[str], Extractor]] = {
    inception.NAME: inception.load,
    dinov2.NAME: dinov2.load,
}


class Parts(NamedTuple):
    """What a config describes, built."""

    process: Process
    model: Model
    objective: Objective
    subject: Subject


class Frozen(NamedTuple):
    """What an objective learns from and with: a teacher's D, LPIPS, and the weights of both."""

    teacher_denoise: DenoiseFn | None
    lpips: Distance | None
    weights: Params  # the `teacher` of the objective's loss


def wire(
    config: Any,
    image_shape: tuple[int, int, int],
    data_classes: int,
    frozen: Frozen | None = None,
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
    heads = len(objective.heads) or 1
    if heads != model.heads:
        raise UserError(
            f'objective {config.objective.name!r} needs config.model.heads = {heads}, got {model.heads}'
        )
    if objective.augment_dim not in (0, model.augment_dim):
        raise UserError(
            f'config.objective.augment = {config.objective.augment} needs a network that is told of '
            f'it: config.model.augment_dim = {objective.augment_dim}, got {model.augment_dim}'
        )
    parts = objective.denoise, process, image_shape, num_classes
    subject = Subject(*parts, objective.heads)
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


def evaluation(config: Any, **given: Any) -> Evaluation:
    """The `evaluation` section, with what is `given` in place of its own, checked."""
    parsed = call('evaluation', Evaluation, {**config.evaluation, **given})
    check_numbers(parsed.samples, parsed.seeds, parsed.batch_size)
    check_name('extractor', parsed.extractor, [*FROM_FILES, *lenet.names()])
    if bool(parsed.weights) != (parsed.extractor in FROM_FILES):
        raise UserError(
            f'config.evaluation.weights is {parsed.weights!r}: the extractors '
            f'{" and ".join(map(repr, FROM_FILES))}, and no others, take the file of their weights '
            f'there; the extractor is {parsed.extractor!r}'
        )
    return parsed


def open_extractor(ev: Evaluation) -> Extractor:
    """The extractor of an evaluation, with its weights."""
    if ev.extractor in FROM_FILES:
        return FROM_FILES[ev.extractor](ev.weights)
    return lenet.extractor(ev.extractor)


def open_reference(
    config: Any, ev: Evaluation, metrics: Sequence[str] = ()
) -> tuple[Extractor, Reference]:
    """The extractor of an evaluation, and its reference, a split or a file: what `metrics` need of it.

    Raises UserError on metrics that the extractor does not have, see metrics.named, and on a file
    that is of another extractor, see references.py.
    """
    extractor = open_extractor(ev)
    named.check(extractor, metrics, ev.samples)
    keep = bool(named.beyond(extractor, metrics))
    if references.is_file(ev.reference):
        found = references.load(ev.reference, extractor, ev.batch_size, keep)
        if keep:
            named.check(extractor, metrics, ev.samples, len(found.features))
        return extractor, found
    source = open_data(config, ev.reference)
    named.check(extractor, metrics, ev.samples, source.count)
    return extractor, reference(source, extractor, ev.batch_size, keep)
