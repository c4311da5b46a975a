"""How much of a consistency method's signal a dtype and a precision of the network keep.

The loss compares D(x_t, t) with D(x_r, r). At the end of the curriculum the two are nearly equal, and
what rounding does to each of them can be larger than their difference d, from which the network learns.
At the last gap, d is compared with the d* of float32 at precision 'highest', by noise level:

    cosine = <d, d*> / (|d| |d*|),   norm ratio = |d| / |d*|

Both are 1 where nothing is lost. The sums are over the values of a few images.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax import objectives, sharding
from cm_jax.data import Source, to_float
from cm_jax.errors import UserError
from cm_jax.objectives import Pairs
from cm_jax.settings import RunSettings
from cm_jax.training.setup import Setup
from cm_jax.types import DenoiseFn, Params
from cm_jax.wiring import Frozen, wire, with_defaults

EXACT = ('float32', 'highest')  # the dtype and the precision that others are compared with
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)  # of the noise levels that training draws
DRAWS = 4096  # how many of them are drawn to find their quantiles
IMAGES = 4  # that the start of training looks at
LEAST = 0.95  # a lower cosine is warned of
# The start of training waits for its programs, which compile twice as fast so; for XLA on CPUs.
QUICK = {'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}


class Kept(NamedTuple):
    """What is left of the signal at each noise level: the cosine and the norm ratio, [levels]."""

    cosine: np.ndarray
    ratio: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
    """Noisy images at the last gap of a run: `count` of them at each pair of noise levels t > r."""

    settings: RunSettings
    source: Source
    teacher_denoise: DenoiseFn | None
    t: np.ndarray  # [levels]
    r: np.ndarray  # [levels]
    count: int
    compiler_options: dict[str, Any] | None = None

    def difference(self, params: Params, teacher: Params, dtype: str, precision: str) -> np.ndarray:
        """Returns D(x_t, t) - D(x_r, r) of a network that computes so: float64 [levels, values]."""
        levels = len(self.t)
        images, labels = self.source.get(np.arange(self.count) % self.source.count)
        eps = np.random.default_rng(0).standard_normal(images.shape, np.float32)
        x0, eps = (np.tile(x, (levels, 1, 1, 1)) for x in (to_float(images), eps))
        t, r = (np.repeat(level, self.count) for level in (self.t, self.r))
        difference = _pairs(self, dtype, precision).difference
        program = jax.jit(difference, compiler_options=self.compiler_options)
        found = program(params, teacher, x0, eps, t, r, np.tile(labels, levels))
        return sharding.to_host(found).astype(np.float64).reshape(levels, -1)


def check_objective(settings: RunSettings) -> None:
    """Raises UserError unless the run has a last gap.

    It has none if its objective compares no noise levels, or if its weights were imported.
    """
    name, legal = settings.objective['name'], objectives.names_with_pairs()
    if name not in legal:
        raise UserError(
            f'objective {name!r} compares no two noise levels, so that no difference of them can be '
            f'lost; the objectives that do: {", ".join(legal)}'
        )
    if not settings.steps:
        raise UserError('imported weights have no curriculum, and so no last gap to look at')


def make_probe(
    settings: RunSettings, source: Source, count: int, teacher_denoise: DenoiseFn | None = None
) -> Probe:
    """Returns the probe of a run that `check_objective` accepts.

    `source` is its data, and `teacher_denoise` the denoiser of its teacher, if it has one.
    """
    assert settings.steps
    none = np.zeros(0)
    probe = Probe(
        settings=settings,
        source=source,
        teacher_denoise=teacher_denoise,
        t=none,
        r=none,
        count=count,
    )
    draw = jax.jit(_pairs(probe, *EXACT).draw, static_argnums=1)
    drawn = jax.device_get(draw(jax.random.key(0), DRAWS, jnp.int32(settings.steps - 1)))
    chosen = np.argsort(drawn[0])[[int(quantile * DRAWS) for quantile in QUANTILES]]
    return dataclasses.replace(probe, t=drawn[0][chosen], r=drawn[1][chosen])


def _pairs(probe: Probe, dtype: str, precision: str) -> Pairs:
    """Returns the pairs of the run's objective with a network of that dtype and precision."""
    settings, source = probe.settings, probe.source
    model = {**settings.model, 'dtype': dtype, 'precision': precision}
    parts = wire(
        dataclasses.replace(settings, model=model),
        source.image_shape,
        source.num_classes,
        Frozen(teacher_denoise=probe.teacher_denoise),
    )
    assert parts.objective.pairs is not None
    return parts.objective.pairs


def compare(found: np.ndarray, exact: np.ndarray) -> Kept:
    """Returns what `found` keeps of `exact`, both float64 [levels, values]; nan if it is not finite."""
    with np.errstate(invalid='ignore', divide='ignore'):
        norm, wanted = (np.sqrt(np.sum(d**2, axis=1)) for d in (found, exact))
        return Kept(cosine=np.sum(found * exact, axis=1) / (norm * wanted), ratio=norm / wanted)


def table(
    probe: Probe, params: Params, teacher: Params, choices: Iterable[tuple[str, str]]
) -> list[str]:
    """Returns the lines of a Markdown table: what each choice of dtype and precision keeps."""
    levels = [f't = {t:.3g}, r/t = {r / t:.4f}' for t, r in zip(probe.t, probe.r)]
    lines = [_row('dtype', 'precision', *levels), _row(*['---'] * (2 + len(levels)))]
    exact = probe.difference(params, teacher, *EXACT)
    for choice in choices:
        found = exact if choice == EXACT else probe.difference(params, teacher, *choice)
        kept = zip(*compare(found, exact))
        lines.append(_row(*choice, *(f'{cosine:.4f} ({ratio:.3f})' for cosine, ratio in kept)))
    return lines


def _row(*cells: str) -> str:
    """Returns one line of a Markdown table."""
    return f'| {" | ".join(cells)} |'


def is_exact(dtype: str, precision: str) -> bool:
    """Returns whether float32 numbers are computed with here, so that there is nothing to compare."""
    return dtype == 'float32' and (precision == 'highest' or jax.default_backend() == 'cpu')


def warning(run: Setup, params: Params, first_step: int) -> str:
    """Returns what a run that starts at `first_step` from `params` should be warned of; '' if nothing.

    Nothing is computed where the objective compares no noise levels, or where the run computes
    exactly. Nothing can be seen in the first weights of a run that starts from no other, since their
    last layer gives 0: such a run is told so, unless it has float32 at 'high', which is TF32 or finer.
    Whatever goes wrong becomes the warning: it must stop no training.
    """
    settings, model = run.settings, with_defaults(run.settings.model)
    dtype, precision = model['dtype'], model['precision']
    has_pairs = settings.objective['name'] in objectives.names_with_pairs()
    if not has_pairs or is_exact(dtype, precision):
        return ''
    what = f'model.dtype {dtype} with model.precision {precision}'
    command = f'python -m cm_jax.check_precision --workdir={run.workdir}'
    if not first_step and not settings.init_from.workdir:
        if (dtype, precision) == ('float32', 'high'):
            return ''
        return (
            f'{what} may lose the signal of the last gap; once weights are saved, {command} tells'
        )
    try:
        probe = make_probe(settings, run.batches.source, IMAGES, run.teacher_denoise)
        if jax.default_backend() == 'cpu':
            probe = dataclasses.replace(probe, compiler_options=QUICK)
        teacher = run.teacher if run.lpips is None else run.teacher[0]
        exact, found = (
            probe.difference(params, teacher, *how) for how in (EXACT, (dtype, precision))
        )
        cosine = compare(found, exact).cosine
    except Exception as error:  # whatever it is
        return f'whether {what} keeps the signal of the last gap could not be measured: {error}'
    worst = int(np.argmin(np.nan_to_num(cosine, nan=-1)))
    if cosine[worst] >= LEAST:
        return ''
    return (
        f'{what} loses the signal of the last gap: at t = {probe.t[worst]:.3g} the cosine of '
        f'D(x_t) - D(x_r) with its exact value is {cosine[worst]:.2f}. Take model.dtype=float32 with '
        f'model.precision=highest; {command} has the other choices'
    )
