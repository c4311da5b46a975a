"""What may follow a sampler in its text: a clip of x0, a head, and one of two kinds of guidance."""

import math

from cm_jax.errors import UserError

DIGITS = 18  # of a whole number that a user writes, at most


def whole_number(text: str) -> int | None:
    """Returns the number that at most DIGITS decimal digits write, or None for any other text."""
    return int(text) if text.isdecimal() and len(text) <= DIGITS else None


def parse_clip(arguments: str) -> tuple[str, bool]:
    """Splits the arguments '40,clip' of a sampler into ('40', True), and '40' into ('40', False)."""
    bare = arguments.removesuffix(',clip')
    return bare, bare != arguments


def parse_guidance(spec: str) -> tuple[str, float]:
    """Splits 'heun@18+cfg1.5' into ('heun@18', 1.5); the weight is 1 if none is written.

    Raises UserError unless the weight is one finite number >= 0.
    """
    bare, *weights = spec.split('+cfg')
    if not weights:
        return bare, 1.0
    try:
        (weight,) = map(float, weights)
    except ValueError:
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise UserError(
            f'guidance of {spec!r}: write +cfg and one weight >= 0 at the end, as {bare}+cfg1.5'
        )
    return bare, weight


def parse_autoguidance(spec: str) -> tuple[str, float, str]:
    """Splits 'heun@32+auto1.7=RUN' into ('heun@32', 1.7, 'RUN'), and 'heun@32' into ('heun@32', 1, '').

    Raises UserError unless the weight is one finite number >= 0 and a run stands behind it.
    """
    bare, *guides = spec.split('+auto')
    if not guides:
        return bare, 1.0, ''
    weight, _, guide = guides[0].partition('=')
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if len(guides) > 1 or not 0 <= number < math.inf or not parse_guide(guide)[0]:
        raise UserError(
            f'autoguidance of {spec!r}: write +auto, one weight >= 0, = and the folder of the run that '
            f'guides, perhaps with a step and an average, as {bare}+auto1.7=runs/small,8192,0.999'
        )
    return bare, number, guide


def parse_guide(guide: str) -> tuple[str, int | None, str]:
    """Returns (folder, step, average) of 'RUN,step,average'; the step is None and the average '' if
    they are not written. Raises UserError on a step that is no whole number, or if there is more."""
    folder, *others = guide.split(',')
    step, ema = (*others, '', '')[:2]
    number = whole_number(step)
    if len(others) > 2 or (others and number is None):
        raise UserError(
            f'guide {guide!r}: write the folder of its run, and perhaps a step and an average of its '
            'weights, as runs/small,8192,0.999'
        )
    return folder, number, ema


def parse_head(spec: str) -> tuple[str, int]:
    """Splits 'euler@16+head2' into ('euler@16', 2); the head is 0 if none is written.

    Raises UserError unless the head is one whole number >= 1.
    """
    bare, *heads = spec.split('+head')
    if not heads:
        return bare, 0
    head = whole_number(heads[0])
    if len(heads) > 1 or not head:
        raise UserError(f'head of {spec!r}: write +head and its number from 1, as {bare}+head1')
    return bare, head
