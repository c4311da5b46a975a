"""Measures how much of a consistency run's signal each dtype and precision keep on this device.

    python -m cm_jax.check_precision --workdir=runs/digits/ect

The loss of a consistency method compares the denoiser D at two noise levels t > r. At the last gap of
the run's curriculum the difference D(x_t, t) - D(x_r, r) of its weights is computed with every
`model.dtype` and `model.precision`, and compared with that of float32 at precision highest. The table
has a column for each noise level, a quantile of those that training draws, and in it the cosine of the
two differences and, in brackets, the ratio of their norms. Both are 1 where nothing is lost. The images
are the first of the run's data; for CD the teacher must be there.
"""

import itertools
from collections.abc import Sequence

import jax

from cm_jax import cli
from cm_jax.bounds import BatchSize
from cm_jax.core.precision import PRECISIONS
from cm_jax.errors import UserError
from cm_jax.models.unet import DTYPES
from cm_jax.run import open_run
from cm_jax.training import precision
from cm_jax.training.transfer import open_teacher
from cm_jax.wiring import open_data

_WORKDIR = cli.workdir_flag()
_STEP = cli.step_flag()
_COUNT = cli.number_flag(
    'count', 16, 'how many images are looked at at each noise level', BatchSize
)


def main(argv: Sequence[str]) -> None:
    del argv
    run = open_run(cli.required_workdir(_WORKDIR, writes=False))
    settings, step = run.settings, run.step(_STEP.value)
    precision.check_objective(settings)
    source = open_data(settings.dataset)
    if _COUNT.value > source.count:
        raise UserError(f'--count={_COUNT.value}, and the data have {source.count:,} images')
    denoise, teacher = open_teacher(settings, source.image_shape)
    probe = precision.make_probe(settings, source, _COUNT.value, denoise)
    device = jax.devices()[0]
    print(
        f'{settings.objective["name"]}, weights of step {step}, the gap of step {settings.steps}; '
        f'{_COUNT.value} images; {device.platform}: {device.device_kind}, JAX {jax.__version__}\n'
    )
    choices = itertools.product(DTYPES, PRECISIONS)
    print('\n'.join(precision.table(probe, run.params(step), teacher, choices)))


if __name__ == '__main__':
    cli.run(main)
