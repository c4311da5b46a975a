"""The rows of a report: the teacher, ECT, the best average of its weights, LCSC."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cm_jax.config import differences
from cm_jax.errors import UserError
from cm_jax.lcsc.identity import AVERAGES, LAST, LCSC
from cm_jax.metrics.protocol import COMPARABLE
from cm_jax.run import Run

NAMES = {'teacher': 'Teacher', 'ect': 'ECT', 'ema': 'Best average', 'lcsc': 'LCSC'}


class Entry(NamedTuple):
    """One row of the table."""

    model: str  # teacher, ect, ema or lcsc
    weights: str  # which of the model's weights, as the row's protocol names them
    row: Mapping[str, Any]  # a score with its protocol

    @property
    def sampler(self) -> str:
        return self.row['protocol']['sampler']

    @property
    def evaluations(self) -> int:
        return self.row['protocol']['evaluations']

    @property
    def steps(self) -> int:
        """The sampler's noise levels; the 0 at the end of a list of levels is no step."""
        return sum(level > 0 for level in self.row['protocol']['levels'])

    @property
    def metric(self) -> str:
        return self.row['protocol']['score'].rpartition('_')[0]

    @property
    def value(self) -> float:
        return self.row[self.metric]

    @property
    def score(self) -> str:
        """'3.79 ± 0.11', or the mean alone if there was one seed."""
        spread = self.row[f'{self.metric}_std']
        return f'{self.value:.2f}' + ('' if spread is None else f' ± {spread:.2f}')


def counted(number: int, noun: str) -> str:
    """'1 step', '2 steps'."""
    return f'{number:,} {noun}{"" if number == 1 else "s"}'


def what(entry: Entry, snapshots: int) -> str:
    """What a row's model is, in a few words."""
    return {
        'teacher': f'diffusion model, {entry.sampler}',
        'ect': 'consistency model, last weights',
        'ema': f'best average of its weights: {entry.weights}',
        'lcsc': f'searched combination of {snapshots} checkpoints',
    }[entry.model]


def compared(a: Entry, b: Entry) -> str:
    """How a's score stands to b's: '13 % lower than'."""
    percent = round(100 * (a.value / b.value - 1))
    if not percent:
        return 'within half a percent of'
    return f'{abs(percent)} % {"lower" if percent < 0 else "higher"} than'


def by_sampler(entries: Sequence[Entry], model: str) -> list[Entry]:
    """The rows of a model, the cheapest sampler first."""
    return sorted((e for e in entries if e.model == model), key=lambda e: e.evaluations)


def teacher_entries(run: Run, like: Mapping[str, Any]) -> list[Entry]:
    """The teacher's scores with several evaluations and with one, of the weights it samples with.

    Those are the last step's, of the average that config.sampling.ema names. Of several scores, the
    one measured most like the protocol `like`, with config.sampling.sampler where it was scored.
    """
    sampling, step = run.settings.sampling, run.step()
    mine = {'ema': sampling.ema, 'step': step}
    rows = [row for row in run.scores() if mine.items() <= row['protocol'].items()]

    def fitting(row: Mapping[str, Any]) -> tuple:
        p = row['protocol']
        alike = [p[key] == like[key] for key in ('id', 'seeds')]
        return *alike, p['sampler'] == sampling.sampler, p['evaluations']

    entries = []
    for spec in ('heun@18', 'onestep'):
        found = [r for r in rows if (r['protocol']['evaluations'] == 1) == (spec == 'onestep')]
        if not found:
            raise UserError(
                f'{run.workdir} has no score such as {spec} with ema {sampling.ema!r} at its last '
                f'step, {step}; this makes it: python -m cm_jax.evaluate --workdir={run.workdir} '
                f"--ema='{sampling.ema}' --sampler={spec}"
            )
        entries.append(Entry('teacher', sampling.ema, max(found, key=fitting)))
    return entries


def average_entries(rows: Sequence[Mapping[str, Any]]) -> list[Entry]:
    """Returns every average in the rows of a search's report."""
    return [Entry('ema', row['label'], row) for row in rows if row['kind'] in AVERAGES]


def report_entries(rows: Sequence[Mapping[str, Any]]) -> list[Entry]:
    """Returns, for each sampler of a search's report, the last weights, the best average and LCSC."""
    entries = []
    for spec in dict.fromkeys(row['protocol']['sampler'] for row in rows):
        mine = [row for row in rows if row['protocol']['sampler'] == spec]
        by_kind = {row['kind']: row for row in mine}
        best = min(average_entries(mine), key=lambda entry: entry.value)
        last, lcsc = by_kind[LAST], by_kind[LCSC]
        entries += [Entry('ect', last['label'], last), best, Entry('lcsc', lcsc['label'], lcsc)]
    return entries


def check_comparable(entries: Sequence[Entry]) -> None:
    """Raises UserError unless all rows have the same protocol id, naming what differs."""
    last = entries[-1]
    for entry in entries:
        a, b = entry.row['protocol'], last.row['protocol']
        if a['id'] != b['id']:
            differing = differences(*({k: p[k] for k in COMPARABLE} for p in (a, b)))
            raise UserError(
                f'the scores of {entry.model} ({entry.sampler}, there) and {last.model} '
                f'({last.sampler}, here) are not comparable: {"; ".join(differing) or "other id"}. '
                'Evaluate both with the same samples, extractor and reference'
            )


def results(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The rows of results.json."""
    return [
        {
            'model': entry.model,
            'steps': entry.steps,
            'evaluations': entry.evaluations,
            entry.metric: entry.value,
            f'{entry.metric}_std': entry.row[f'{entry.metric}_std'],
            'samples': entry.row['protocol']['samples'],
            'seeds': entry.row['protocol']['seeds'],
        }
        for entry in entries
    ]


def table(entries: Sequence[Entry], snapshots: int) -> str:
    """The rows for the terminal, aligned."""
    lines = [('model', 'what it is', 'steps', 'evaluations', entries[0].metric)]
    for e in entries:
        lines.append((e.model, what(e, snapshots), str(e.steps), str(e.evaluations), e.score))
    a, b, *_ = (max(map(len, column)) for column in zip(*lines))
    return '\n'.join(f'{m:<{a}}  {w:<{b}}  {s:>5}  {n:>11}  {v}' for m, w, s, n, v in lines)
