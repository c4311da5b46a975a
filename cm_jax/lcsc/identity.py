"""Who a row of a search is about: a kind, by which programs know it, and a label for people.

kind      label         weights
last      last          the last snapshot of the window
ema       ema 0.99      an average that the training run itself kept, at that step
ema*      ema* 0.9      an EMA profile over the snapshots of the window; its rate is per snapshot
uniform   uniform       the plain average of the snapshots
window    window 5-9    the plain average of the snapshots of steps 5 to 9 (lcsc.baselines)
bema      bema 0.2 ...  an average whose bias is corrected (BEMA), by its power eta (lcsc.baselines)
posthoc   posthoc0.1    a power-function average (EDM2) that was made after training
random    random        the best candidate of a random search
lcsc      lcsc          the combination that the search chose
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

LAST, EMA, EMA_STAR, UNIFORM = 'last', 'ema', 'ema*', 'uniform'
WINDOW, BEMA, POSTHOC = 'window', 'bema', 'posthoc'
RANDOM, LCSC = 'random', 'lcsc'
KINDS = (LAST, EMA, EMA_STAR, UNIFORM, WINDOW, BEMA, POSTHOC, RANDOM, LCSC)
AVERAGES = (EMA, EMA_STAR, UNIFORM, WINDOW, BEMA, POSTHOC)
MEANINGS = {  # for people who read the report of a search in the terminal
    LAST: 'the last snapshot',
    EMA: 'an average that the training run kept, by its decay a step',
    EMA_STAR: 'the best of several EMAs over the snapshots, by its decay a snapshot',
    UNIFORM: 'the plain average of the snapshots',
    WINDOW: 'the best plain average of snapshots in a row, from one step to another',
    BEMA: 'the best average with a corrected bias, by its power',
    POSTHOC: 'the best power-function average made after training, by its width',
    RANDOM: 'the best of as many random candidates',
    LCSC: 'the combination that the search has chosen',
}
# How labels of earlier versions, whose rows had no kind, began.
EARLIER_PREFIXES = {'ema* ': EMA_STAR, 'ema ': EMA, 'posthoc': POSTHOC}


class Identity(NamedTuple):
    """Who a row is about; see the module."""

    kind: str
    label: str


def of_earlier_label(label: str) -> Identity:
    """Returns the identity behind a label that an earlier version stored without its kind."""
    for prefix, kind in EARLIER_PREFIXES.items():
        if label.startswith(prefix):
            return Identity(kind, label)
    return Identity(label, label)


def of_row(row: Mapping[str, Any]) -> Identity:
    """Returns whom a row of a search's report is about."""
    if 'kind' in row:
        return Identity(row['kind'], row['label'])
    return of_earlier_label(row['model'])  # a row of an earlier version
