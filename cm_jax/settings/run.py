"""The settings of a training run; cm_jax.settings says what a settings class is."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

from cm_jax.bounds import BatchSize, Count, Interval, Natural, Rate, Samples
from cm_jax.core.ema import MAX_SIGMA_REL
from cm_jax.errors import UserError, check_name
from cm_jax.metrics.features import ROUNDING

Seed = Natural  # of training and of noise
SigmaRel = Annotated[float, Interval(f'(0, {MAX_SIGMA_REL:.9f})')]  # of a power-function average
Pictures = Annotated[int, Interval('[1, 50000]')]  # in one grid: at most as many as an FID takes


def mapping_field(**defaults: Any) -> Any:
    """Returns a dataclass field that holds a mapping, a new copy of `defaults` if it is not given."""
    return dataclasses.field(default_factory=lambda: dict(defaults))


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsOf:
    """The sections `init_from` and `teacher`: which weights of another run are used."""

    # The folder of the other run. With '' no other run is used.
    workdir: str = ''
    # The training step of its snapshot; one of those that its trajectory holds. None is the last one.
    step: Natural | None = None
    # Which average of the weights, by its name, such as '0.999'. '' is the weights themselves.
    ema: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loop:
    """The section `train`: how the training loop runs. Intervals are in optimiser steps."""

    # The batch of a step is computed in so many micro-batches, one after another. More of them need
    # less memory. `batch_size` stays the size of the whole batch, and must be a multiple of this number
    # times the number of devices.
    accumulate: BatchSize = 1
    # How the parameters lie on the devices: 'replicated' (all of them on each) or 'fsdp' (each array is
    # split over the devices where its shape allows it).
    weights: str = 'replicated'
    # The metrics are logged every so many steps, as means over these steps.
    log_every: Count = 50
    # The full training state, from which a stopped run continues, is saved every so many steps.
    resume_every: Count = 500
    # How many full training states are kept; older ones are deleted.
    resume_keep: Count = 2
    # The weights are scored every so many steps, and at the end, as `evaluation` has it but on fewer
    # samples: those of the noise of the pictures, by the sampler and the average of `sampling`. The
    # score stands among the metrics under a name with the number of samples, as 'fid_1k'. 0 is never.
    evaluate_every: Natural = 0
    # How many images are generated for such a score.
    evaluate_samples: Samples = 1000
    # The project of Weights & Biases that gets the metrics too; it needs the package wandb. '' is none.
    wandb: str = ''
    # Training stops with an error after so many steps in a row whose loss or gradient is not finite.
    # (A single such step is skipped and logged.)
    stop_after_skipped: Count = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trajectory:
    """The section `trajectory`: of which steps the weights are kept.

    These snapshots are what LCSC combines and what samples and scores are made from.
    """

    # The first training step of which the weights are kept.
    start: Natural = 0
    # From there on they are kept every so many steps. The last step is always kept.
    every: Count = 500
    # Whether each snapshot also holds the averages of the weights. The last one always does.
    emas: bool = False

    def due(self, step: int, last: int) -> bool:
        """Returns whether the weights of `step` are kept, in a run whose last step is `last`.

        The steps that are kept are start, start + every, start + 2 every, ..., and the last one.
        """
        return step == last or (step >= self.start and (step - self.start) % self.every == 0)

    def count(self, last: int) -> int:
        """Returns of how many steps the weights are kept in a run whose last step is `last`."""
        return 1 + max(0, -(-(last - self.start) // self.every))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """The section `sampling`: the pictures made during training, and the defaults of `sample`."""

    # The sampler: 'onestep', 'multistep@80,0.8', 'heun@18', ... (cm_jax.samplers has them all).
    sampler: str = 'onestep'
    # Which average of the weights makes the pictures, by its name, such as '0.999'. '' is the weights
    # themselves.
    ema: str = ''
    # How many pictures stand in a grid.
    count: Pictures = 64
    # During training a grid is made every so many steps, and at the end.
    every: Count = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The section `evaluation`: how weights are scored.

    Each seed is a stream of noise of its own, and gives one score of `samples` generated images. The
    score that is shown is the mean over the seeds, with their standard deviation beside it.
    """

    # The features that are compared: 'inception' for FID, 'dinov2_vitl14', 'vgg16', a packaged LeNet
    # ('lenet_digits', 'lenet_fashion_mnist'), or the pixels themselves ('pixel', 'pixel_rgb'). With ''
    # nothing can be scored before one is named: which one suits depends on the data.
    extractor: str = ''
    # The path of the file of the extractor's weights, for the extractors whose weights are not part of
    # the package ('inception', 'dinov2_vitl14' and 'vgg16'); '' for the others, and where the extractor
    # names its file itself, as 'vgg16=FILE'.
    weights: str = ''
    # Other extractors, in whose features the same images are measured too: a second opinion, beside the
    # first. Each is a name as above, with its file, if it has one, behind '=': 'lenet_fashion_mnist',
    # 'pixel', 'vgg16=FILE', 'inception=FILE'. The reference must then be a split, or EDM2's file, which
    # has the statistics of 'inception' and 'dinov2_vitl14'.
    second: tuple[str, ...] = ()
    # The samplers that are scored, each as in `sampling.sampler`.
    samplers: tuple[str, ...] = ('onestep',)
    # How many images are generated for each seed.
    samples: Samples = 5000
    # The seeds of the noise: one or more different numbers.
    seeds: tuple[Seed, ...] = (1000, 1001, 1002)
    # How many images are generated at a time. It changes the speed and no score.
    batch_size: BatchSize = 500
    # The real images to compare with: a split of the data set, or the path of an .npz file of their
    # statistics, which `python -m cm_jax.reference` makes, or of EDM2's .pkl of statistics.
    reference: str = 'train'
    # How an image becomes the bytes of a picture before it is measured: 'round', or 'truncate' as in
    # the code of Consistency Models (metrics/features.py). Scores by different rules do not compare.
    bytes: str = 'round'

    def __post_init__(self) -> None:
        check_name('config.evaluation.bytes', self.bytes, ROUNDING)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f'evaluation.seeds must be different numbers, got {self.seeds}')


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings:
    """A training run."""

    # Decides the first weights, the order of the data and the noise of training.
    seed: Seed = 0
    # The number of optimiser steps; 0 only in the folder of weights that were imported. It has no
    # default: every config of a run sets it.
    steps: Natural | None = None
    # How many images a step learns from, over all devices, processes and micro-batches together.
    batch_size: BatchSize = 128
    # Whether the network is given the class label of each image.
    class_conditional: bool = False
    # The decay rates of the exponential moving averages of the weights that are kept. An average is
    # named by its rate: '0.999'.
    ema_rates: tuple[Rate, ...] = (0.999,)
    # The relative widths sigma_rel of the power-function averages that are kept beside them (EDM2;
    # cm_jax.core.ema). Such an average is named 'power0.05'.
    ema_sigma_rels: tuple[SigmaRel, ...] = ()
    # The training data: arguments of cm_jax.data.open_source.
    dataset: Mapping[str, Any] = mapping_field(
        source='digits', split='train', flip=False, crop='', name='', data_dir='', path=''
    )
    # How noise is added, between which levels: arguments of cm_jax.core.process.build.
    process: Mapping[str, Any] = mapping_field(name='ve', t_min=0.002, t_max=80.0)
    # The network: its `name`, and arguments of `build` in cm_jax/models/<name>.py.
    model: Mapping[str, Any] = mapping_field(name='song_unet')
    # The network of a learnt noise distribution, for the objectives that can learn one (`flow` and
    # `catch_up`): its `name` and settings, as in `model`. Without a name the noise is independent.
    prior: Mapping[str, Any] = mapping_field()
    # The method of training: its `name`, and arguments of `make` in cm_jax/objectives/<name>.py.
    objective: Mapping[str, Any] = mapping_field(name='edm')
    # The optimiser and its learning rate: arguments of cm_jax.training.optim.make.
    optimizer: Mapping[str, Any] = mapping_field(name='adam', learning_rate=1e-3)
    # The weights that training starts from. Without a workdir they are drawn at random.
    init_from: WeightsOf = WeightsOf()
    # The weights of the teacher, which are not trained, for the objectives that learn from one.
    teacher: WeightsOf = WeightsOf()
    # The files of LPIPS, for an objective whose `distance` is 'lpips': arguments of
    # cm_jax.weights.lpips.load.
    lpips: Mapping[str, Any] = mapping_field(network='vgg', features='', heads='', pooling='max')
    train: Loop = Loop()
    trajectory: Trajectory = Trajectory()
    sampling: Sampling = Sampling()
    evaluation: Evaluation = Evaluation()

    def images_seen(self) -> int:
        """Returns how many images the whole run learns from: steps times batch_size.

        Raises UserError if the number of steps is not set.
        """
        if self.steps is None:
            raise UserError('config.steps is not set')
        return self.steps * self.batch_size
