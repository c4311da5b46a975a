"""The text of a sampler, completed; and the run that guides another, opened."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cm_jax.config import differences
from cm_jax.errors import UserError, check_name
from cm_jax.samplers import Guide, parse_autoguidance, parse_guide
from cm_jax.wiring import beside

if TYPE_CHECKING:
    from cm_jax.run import Run


def open_guide(run: 'Run', guide: str, open_run: Callable[[str], 'Run']) -> Guide:
    """Returns the guide of samplers of `run` that `guide` names.

    Raises UserError if it does not fit.
    """
    folder, step, ema = parse_guide(guide)
    other = open_run(folder)
    step = other.step(step)
    other.check_ema(step, ema)
    differing = differences(_kind_of_samples(other), _kind_of_samples(run))
    if differing:
        raise UserError(f'guide {folder} does not fit {run.workdir}: {"; ".join(differing)}')
    denoise = beside(run.settings, other.parts.generative_model.denoise)
    return Guide(denoise, functools.partial(other.params, step, ema))


def with_step(spec: str, open_run: Callable[[str], 'Run']) -> str:
    """Returns a sampler's text with the step of the run that guides: its last if none is written."""
    bare, weight, guide = parse_autoguidance(spec)
    if not guide:
        return spec
    folder, step, ema = parse_guide(guide)
    words = [folder, str(open_run(folder).step(step)), *([ema] * bool(ema))]
    return f'{bare}+auto{weight:.10g}={",".join(words)}'


def sampler_spec(
    run: 'Run', spec: str, step: int, ema: str, open_run: Callable[[str], 'Run']
) -> str:
    """Returns the full description of the sampler `spec`; see `Run.sampler_spec`."""
    bare, _, guide = parse_autoguidance(spec)
    if guide:
        guided = with_step(spec, open_run).removeprefix(bare)
        return sampler_spec(run, bare, step, ema, open_run) + guided
    name, _, count = spec.partition('@')
    if name != 'tuned':
        return spec
    tuned = {
        str(record['levels']): record['sampler']
        for record in run.tuned()
        if (record['step'], record['ema']) == (step, ema)
    }
    if not count and len(tuned) == 1:
        return next(iter(tuned.values()))
    if tuned:
        check_name('sampler', spec, [f'tuned@{n}' for n in tuned])
        return tuned[count]
    raise UserError(
        f'sampler {spec!r}: no levels were tuned for these weights; this tunes them: python -m '
        f"cm_jax.tune_levels --workdir={run.workdir} --step={step} --ema='{ema}'"
    )


def _kind_of_samples(run: 'Run') -> dict[str, Any]:
    """Returns what must be equal in a run and in one that guides it."""
    model = run.parts.generative_model
    return {
        'process': run.settings.process,
        'classes': model.num_classes,
        'images': list(model.image_shape),
    }
