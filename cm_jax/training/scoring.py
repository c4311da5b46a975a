"""Scores during training: the weights of some steps, measured on a small sample."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from cm_jax.errors import UserError
from cm_jax.evaluation import references
from cm_jax.evaluation.extractors import open_extractor
from cm_jax.evaluation.scores import Scorer, check_shape
from cm_jax.metrics.protocol import score_name
from cm_jax.samplers import GenerativeModel
from cm_jax.settings import RunSettings
from cm_jax.training.step import TrainState
from cm_jax.wiring import later_space

# (state, step) -> {the name of the score with its number of samples, as 'fid_1k': the score}; {} where
# the step is not due
Score = Callable[[TrainState, int], dict[str, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scoring:
    """The scores of a training run, opened and checked."""

    name: str  # of the score, as 'fid_1k'
    start: Callable[[], Score]  # makes the score; first the features of the reference, of a split


def open_scoring(settings: RunSettings, model: GenerativeModel, mesh: Mesh) -> Scoring | None:
    """Returns the scores of a training run; None if `train.evaluate_every` is 0.

    Every `train.evaluate_every` steps, and at the end, it is the Fréchet distance of `evaluation`
    between `train.evaluate_samples` images and the reference. The images are those of the stream of
    noise `seed`, as in the pictures, by the sampler and the average of the weights in `sampling`. So
    a score depends on the weights alone, and changes nothing in the training. All share one compiled
    program.

    Raises UserError if extractor or reference cannot be opened or do not suit the images, and if
    `seed` is one of `evaluation.seeds`: what is chosen by these scores is reported on other noise.
    """
    loop, sampling, seed = settings.train, settings.sampling, settings.seed
    if not loop.evaluate_every:
        return None
    if seed in settings.evaluation.seeds:
        raise UserError(
            f'config.seed = {seed} is one of config.evaluation.seeds {settings.evaluation.seeds}: '
            'scores during training must not be on the noise that is reported on'
        )
    samples = loop.evaluate_samples
    evaluation = dataclasses.replace(settings.evaluation, samples=samples)
    extractor = open_extractor(evaluation)
    jax.eval_shape(extractor.apply, extractor.params, jnp.zeros((1, *model.image_shape)))
    make_space = later_space(extractor, settings.dataset, evaluation)
    if references.is_file(evaluation.reference):
        check_shape(make_space().reference, model)
    batch_size = min(evaluation.batch_size, samples)
    name = score_name(extractor, samples)

    def start() -> Score:
        scorer = Scorer(model, [make_space()], batch_size, mesh, rule=evaluation.bytes)

        def score(state: TrainState, step: int) -> dict[str, float]:
            if step % loop.evaluate_every and step != settings.steps:
                return {}
            params = state.weights(sampling.ema)
            row = scorer.score(
                params, sampling.sampler, samples, (seed,), ema=sampling.ema, step=step
            )
            return {name: row[extractor.score]}

        return score

    return Scoring(name=name, start=start)
