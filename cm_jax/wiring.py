"""Builds what settings describe: the process, the networks, the objective, the data, the reference."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cm_jax import data, models, objectives
from cm_jax.core import process as processes
from cm_jax.core.precision import at_precision
from cm_jax.core.process import Process
from cm_jax.data import Source
from cm_jax.errors import UserError, build_from, check_name
from cm_jax.evaluation import extractors, references
from cm_jax.evaluation.extractors import open_extractor
from cm_jax.evaluation.scores import FeatureSpace, reference
from cm_jax.metrics import named
from cm_jax.models import Model, heights, with_defaults
from cm_jax.objectives import Objective
from cm_jax.samplers import GenerativeModel
from cm_jax.settings import Evaluation, RunSettings
from cm_jax.types import DenoiseFn, Distance, Extractor, NetFn, Params

# Settings of a network that do not change what its weights mean.
OF_TRAINING = ('dropout', 'dropout_resolution', 'label_dropout', 'dtype', 'precision', 'remat')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of a run, built from its settings by `wire`."""

    process: Process
    model: Model
    objective: Objective
    generative_model: GenerativeModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frozen:
    """The frozen networks that an objective's loss uses: a teacher and LPIPS, with their weights."""

    teacher_denoise: DenoiseFn | None = None
    lpips: Distance | None = None
    weights: Params = ()  # the `teacher` of the objective's loss


def wire(
    settings: RunSettings,
    image_shape: tuple[int, int, int],
    data_classes: int,
    frozen: Frozen = Frozen(),
) -> Parts:
    """Builds the process, the network and the objective of a run.

    Raises UserError on any setting that is wrong.

    Args:
      settings: those of the run.
      image_shape: (height, width, channels) of the data.
      data_classes: the number of classes of the data; 0 if it has no labels.
      frozen: the networks that only the loss uses. The default is enough for sampling.
    """
    if settings.class_conditional and not data_classes:
        raise UserError(
            'config.class_conditional is True, and the data has no labels (pictures in one folder a '
            'class have): add --config.class_conditional=False'
        )
    num_classes = data_classes if settings.class_conditional else 0
    process = build_from('process', processes.build, settings.process)
    model, prior = build_networks(settings, image_shape, num_classes)
    teacher_denoise = frozen.teacher_denoise
    if teacher_denoise is not None:
        teacher_denoise = beside(settings, teacher_denoise)
    objective = objectives.build(
        settings.objective,
        model.net,
        process,
        teacher_denoise=teacher_denoise,
        lpips=frozen.lpips,
        prior=prior,
        log_variance=model.log_variance,
    )
    name = settings.objective['name']
    heads = len(objective.heads) or 1
    if heads != model.heads:
        raise UserError(f'objective {name!r} needs config.model.heads = {heads}, got {model.heads}')
    check_own_guidance(settings)
    times = 1 if objective.jump is None else 2
    if times != model.times:
        raise UserError(f'objective {name!r} needs config.model.times = {times}, got {model.times}')
    if objective.augment_dim not in (0, model.augment_dim):
        raise UserError(
            f'config.objective.augment = {settings.objective["augment"]} needs a network that is '
            f'told of it: config.model.augment_dim = {objective.augment_dim}, got '
            f'{model.augment_dim}'
        )
    generative_model = GenerativeModel(
        denoise=objective.denoise,
        process=process,
        image_shape=image_shape,
        num_classes=num_classes,
        heads=objective.heads,
        jump=objective.jump,
        guidable=bool(with_defaults(settings.model).get('label_dropout')),
    )
    return Parts(
        process=process, model=model, objective=objective, generative_model=generative_model
    )


def check_own_guidance(settings: RunSettings) -> None:
    """Raises UserError if a loss guides by the network itself, which cannot learn what that needs.

    That is an image with its class, and an image without. Guidance by a teacher is checked where the
    teacher is opened.
    """
    guidance = objectives.guidance(settings.objective)
    if guidance == 1 or objectives.takes_teacher(settings.objective['name']):
        return
    if not settings.class_conditional or not with_defaults(settings.model).get('label_dropout'):
        raise UserError(
            f'config.objective.guidance = {guidance} needs classes and images without theirs: set '
            'config.class_conditional and config.model.label_dropout, to 0.1, say'
        )


def beside(settings: RunSettings, denoise: DenoiseFn) -> DenoiseFn:
    """Returns the denoiser of a run that teaches or guides the run of `settings`.

    Its products have the precision that its own run names, or, where that is 'default', this run's.
    """
    return at_precision(denoise, with_defaults(settings.model)['precision'])


def prior_settings(settings: RunSettings) -> Mapping[str, Any]:
    """Returns the section `prior` of the config, or {} if it names no network."""
    return settings.prior if settings.prior.get('name') else {}


def build_networks(
    settings: RunSettings, image_shape: tuple[int, int, int], num_classes: int
) -> tuple[Model, NetFn | None]:
    """Returns the model of a run and the network of its prior, which is None if there is no prior.

    The model's parameters include those of the prior (`models.side_by_side`).
    """
    model = models.build(settings.model, image_shape, num_classes)
    prior = prior_settings(settings)
    if not prior:
        return model, None
    model, others = models.side_by_side(model, prior=models.build_prior(prior, image_shape))
    return model, others['prior']


def net_params(settings: RunSettings, params: Params) -> Params:
    """Returns the parameters of the network from those of a run, without those of a prior."""
    return params[models.NET] if prior_settings(settings) else params


def weights_meaning(settings: RunSettings, image_shape: Sequence[int]) -> dict[str, Any]:
    """Returns what must be equal for weights of one run to mean the same in another.

    These are the networks without what only training has, the preconditioning (which on rectified
    flow has no settings), the process, the shape of the images and whether there are labels.
    """

    def architecture(network: Mapping[str, Any]) -> dict[str, Any]:
        found = {k: v for k, v in with_defaults(network).items() if k not in OF_TRAINING}
        if found:  # a height that the network does not have means nothing
            legal = heights(image_shape, found['channel_mult'])
            found['attn_resolutions'] = sorted(set(found['attn_resolutions']).intersection(legal))
        return found

    preconditioning = {}
    if settings.process['name'] != 'rf':
        preconditioning['sigma_data'] = settings.objective['sigma_data']
    return {
        'model': architecture(settings.model),
        'prior': architecture(prior_settings(settings)),
        **preconditioning,
        'process': settings.process,
        'class_conditional': settings.class_conditional,
        'image_shape': list(image_shape),
    }


def open_data(dataset: Mapping[str, Any], split: str | None = None) -> Source:
    """Returns the data source that a section `dataset` describes.

    `split` replaces the section's own split unless it is None. Raises UserError on wrong settings.
    """
    settings = dict(dataset)
    if split is not None:
        settings['split'] = split
    if 'source' not in settings or 'split' not in settings:
        raise UserError('config.dataset lacks source or split')
    return data.open_source(**settings)


def open_reference(
    dataset: Mapping[str, Any], evaluation: Evaluation, metrics: Sequence[str] = ()
) -> FeatureSpace:
    """Returns the extractor of an evaluation with its reference.

    The reference is made from a split of `dataset`, or read from a file. It keeps the features of its
    images if `metrics` need them. Raises UserError on metrics that the extractor does not have (see
    metrics.named), and on a file that was made with another extractor (see evaluation.references).
    """
    return later_space(open_extractor(evaluation), dataset, evaluation, metrics)()


def open_spaces(
    dataset: Mapping[str, Any],
    evaluation: Evaluation,
    metrics: Sequence[str] = (),
    unused_kinds: Sequence[str] = (),
) -> list[FeatureSpace]:
    """Returns the feature space of an evaluation, and those of `evaluation.second` behind it.

    Each of the `metrics` belongs to the space that has it; without metrics the first space is in use.
    The metrics of the `unused_kinds` are measured too, in the first space that is not in use, or in the
    first of all, where they can be had: of a reference that is a split, with enough images and samples.

    Raises UserError as `open_reference` does, and if there are other spaces and the reference is a
    file of one extractor.
    """
    is_file, second = references.is_file(evaluation.reference), evaluation.second
    if second and references.is_of_one_extractor(evaluation.reference):
        raise UserError(
            f'config.evaluation.second = {second} needs a reference that is a split of the data, such '
            f"as 'train', or EDM2's .pkl; {evaluation.reference!r} is the file of one extractor"
        )
    main = open_extractor(evaluation)
    opened = [main, *extractors.open_spaces(main, second)]
    legal = [name for extractor in opened for name in named.names(extractor)]
    for name in metrics:
        check_name('metric', name, legal)
    own = [[name for name in metrics if name in named.names(e)] for e in opened]
    used = own if metrics else [[opened[0].score], *own[1:]]
    if not is_file and evaluation.samples >= named.LEAST:
        first = next((i for i, names in enumerate(used) if not names), 0)
        kinds = named.names(opened[first]).items()
        own[first] += [n for n, kind in kinds if kind in unused_kinds and n not in own[first]]
    later = [later_space(e, dataset, evaluation, names) for e, names in zip(opened, own)]
    return [space() for space in later]


def later_space(
    extractor: Extractor,
    dataset: Mapping[str, Any],
    evaluation: Evaluation,
    metrics: Sequence[str] = (),
) -> Callable[[], FeatureSpace]:
    """Returns a function that returns an extractor with the reference of an evaluation.

    The reference is opened, and refused as `open_reference` does, before that function is called. What
    takes long, the features of a split, is left to it.
    """
    named.check(extractor, metrics, evaluation.samples)
    keep_features = bool(named.beyond(extractor, metrics))
    if references.is_file(evaluation.reference):
        made = references.load(
            evaluation.reference, extractor, evaluation.batch_size, keep_features
        )
        if keep_features:
            count = len(made.kept_features().array)
            named.check(extractor, metrics, evaluation.samples, count)
        return lambda: FeatureSpace(extractor, made, tuple(metrics))
    source = open_data(dataset, evaluation.reference)
    named.check(extractor, metrics, evaluation.samples, source.count)

    def of_split() -> FeatureSpace:
        made = reference(source, extractor, evaluation.batch_size, keep_features)
        return FeatureSpace(extractor, made, tuple(metrics))

    return of_split
