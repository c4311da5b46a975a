"""The power-function averages that a run makes, after training, of those that it has stored."""

from collections.abc import Iterable
from typing import NamedTuple

from cm_jax.core import ema as averages
from cm_jax.errors import UserError

# The name 'posthoc0.07' stands for the power-function average that is combined from stored ones.
POSTHOC = 'posthoc'
# A post-hoc average is refused if the relative error of its profile is larger.
MAX_ERROR = 0.05


class Term(NamedTuple):
    """One term of the sum that is a post-hoc average: a stored average and its coefficient."""

    step: int
    ema: str
    coefficient: float


def posthoc(stored: Iterable[tuple[int, str]], step: int, ema: str, folder: object) -> list[Term]:
    """Returns the terms whose sum is the post-hoc average `ema` of `step`; see `Run.posthoc`.

    `stored` are the (step, name) of all averages in the run's trajectory, and `folder` is what messages
    call the run.
    """
    try:
        sigma_rel = float(ema.removeprefix(POSTHOC))
    except ValueError:
        raise UserError(f'{POSTHOC} takes a number, as in {POSTHOC}0.07; got {ema!r}') from None
    averages.sigma_rel_to_gamma(sigma_rel)  # raises UserError if it is out of range
    powers = [
        (at, name) for at, name in stored if 0 < at <= step and name.startswith(averages.POWER)
    ]
    if not powers:
        raise UserError(
            f'{ema} is made of stored power-function averages, and {folder} has none up to '
            f'step {step}: training stores them with config.ema_sigma_rels, e.g. (0.05, 0.1), and '
            'config.trajectory.emas=True'
        )
    steps, names = zip(*powers)
    sigma_rels = [float(name.removeprefix(averages.POWER)) for name in names]
    coefficients, error = averages.posthoc(steps, sigma_rels, step, sigma_rel)
    if error > MAX_ERROR:
        raise UserError(
            f'{ema} of step {step} is out of the range of the {len(powers)} averages stored '
            f'({", ".join(sorted(set(names)))}; steps {steps[0]} to {steps[-1]}): its profile '
            f'would be {error:.0%} off, over {MAX_ERROR:.0%}. Choose a sigma_rel nearer to '
            'theirs; in training, config.trajectory.emas=True and a smaller '
            'config.trajectory.every widen the range'
        )
    return [
        Term(step=at, ema=name, coefficient=float(coefficient))
        for at, name, coefficient in zip(steps, names, coefficients)
    ]
