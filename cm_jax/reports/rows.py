"""The rows of a report: the teacher, ECT, the best average of its weights, LCSC.

A row is a score of one model's weights with one sampler, measured on report noise.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cm_jax.config import differences
from cm_jax.errors import UserError
from cm_jax.lcsc.identity import AVERAGES, LAST, LCSC
from cm_jax.metrics.protocol import COMPARABLE
from cm_jax.run import Run

NAMES = {'teacher': 'Teacher', 'ect': 'ECT', 'ema': 'Best average', 'lcsc': 'LCSC'}


class Entry(NamedTuple):
    """One row of the report's table."""

    model: str  # a key of NAMES
    weights: str  # which weights of the model, e.g. 'ema 0.99', as the row's protocol names them
    row: Mapping[str, Any]  # the score and its protocol, as scores.jsonl or report.json holds them

    @property
    def sampler(self) -> str:
        """The sampler, as it is written for --sampler."""
        return self.row['protocol']['sampler']

    @property
    def evaluations(self) -> int:
        """How many network evaluations one sample takes."""
        return self.row['protocol']['evaluations']

    @property
    def steps(self) -> int:
        """How many steps the sampler makes: its noise levels above 0."""
        return sum(level > 0 for level in self.row['protocol']['levels'])

    @property
    def metric(self) -> str:
        """The name of the Fréchet distance that the score is, e.g. 'fd_lenet'."""
        return self.row['protocol']['score'].rpartition('_')[0]

    @property
    def value(self) -> float:
        """The score: its mean over the noise seeds. Lower is better."""
        return self.row[self.metric]

    @property
    def score(self) -> str:
        """The score and its standard deviation, '3.79 ± 0.11'; without the latter for one seed."""
        spread = self.row[f'{self.metric}_std']
        return f'{self.value:.2f}' + ('' if spread is None else f' ± {spread:.2f}')


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun: '1 step', '2 steps'."""
    return f'{number:,} {noun}{"" if number == 1 else "s"}'


def what(entry: Entry, snapshots: int) -> str:
    """Returns what a row's model is, in a few words. `snapshots` is how many LCSC combined."""
    return {
        'teacher': f'diffusion model, {entry.sampler}',
        'ect': 'consistency model, last weights',
        'ema': f'best average of its weights: {entry.weights}',
        'lcsc': f'searched combination of {snapshots} checkpoints',
    }[entry.model]


def compared(a: Entry, b: Entry) -> str:
    """Returns how the score of `a` compares with that of `b`, for a sentence: '13 % lower than'."""
    percent = round(100 * (a.value / b.value - 1))
    if not percent:
        return 'within half a percent of'
    return f'{abs(percent)} % {"lower" if percent < 0 else "higher"} than'


def by_sampler(entries: Sequence[Entry], model: str) -> list[Entry]:
    """Returns the rows of a model, in ascending order of the network evaluations of the sampler."""
    own = [entry for entry in entries if entry.model == model]
    return sorted(own, key=lambda entry: entry.evaluations)


def teacher_entries(run: Run, like: Mapping[str, Any]) -> list[Entry]:
    """Returns two scores of the teacher: one with several network evaluations, and one with a single.

    Both are of its last step and of the weights that config.sampling.ema names. If there are several
    such scores, it is the one whose protocol is most like the protocol `like`, and among these the one
    with config.sampling.sampler. Raises UserError, with the command that makes it, if there is none.
    """
    sampling, step = run.settings.sampling, run.step()
    rows = [
        row
        for row in run.scores()
        if row['protocol']['ema'] == sampling.ema and row['protocol']['step'] == step
    ]

    def preference(row: Mapping[str, Any]) -> tuple[bool, bool, bool, int]:
        protocol = row['protocol']
        return (
            protocol['id'] == like['id'],
            protocol['seeds'] == like['seeds'],
            protocol['sampler'] == sampling.sampler,
            protocol['evaluations'],
        )

    entries = []
    for spec in ('heun@18', 'onestep'):
        is_single = spec == 'onestep'
        scores = [row for row in rows if (row['protocol']['evaluations'] == 1) == is_single]
        if not scores:
            raise UserError(
                f'{run.workdir} has no score such as {spec} with ema {sampling.ema!r} at its last '
                f'step, {step}; this makes it: python -m cm_jax.evaluate --workdir={run.workdir} '
                f"--ema='{sampling.ema}' --sampler={spec}"
            )
        entries.append(Entry('teacher', sampling.ema, max(scores, key=preference)))
    return entries


def average_entries(rows: Sequence[Mapping[str, Any]]) -> list[Entry]:
    """Returns the rows of a search's report that are averages of weights, in their order."""
    return [Entry('ema', row['label'], row) for row in rows if row['kind'] in AVERAGES]


def report_entries(rows: Sequence[Mapping[str, Any]]) -> list[Entry]:
    """Returns, for each sampler of a search's report, the last weights, the best average and LCSC."""
    entries = []
    for spec in dict.fromkeys(row['protocol']['sampler'] for row in rows):
        of_sampler = [row for row in rows if row['protocol']['sampler'] == spec]
        by_kind = {row['kind']: row for row in of_sampler}
        best = min(average_entries(of_sampler), key=lambda entry: entry.value)
        last, lcsc = by_kind[LAST], by_kind[LCSC]
        entries += [Entry('ect', last['label'], last), best, Entry('lcsc', lcsc['label'], lcsc)]
    return entries


def check_comparable(entries: Sequence[Entry]) -> None:
    """Raises UserError, naming what differs, unless all rows have the same protocol id."""
    last = entries[-1]
    for entry in entries:
        protocols = entry.row['protocol'], last.row['protocol']
        if protocols[0]['id'] != protocols[1]['id']:
            there, here = ({key: p[key] for key in COMPARABLE} for p in protocols)
            differing = differences(there, here)
            raise UserError(
                f'the scores of {entry.model} ({entry.sampler}, there) and {last.model} '
                f'({last.sampler}, here) are not comparable: {"; ".join(differing) or "other id"}. '
                'Evaluate both with the same samples, extractor and reference'
            )


def results(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Returns the rows of results.json."""
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
    """Returns the rows as a table of aligned text, for the terminal."""
    lines = [('model', 'what it is', 'steps', 'evaluations', entries[0].metric)]
    for e in entries:
        lines.append((e.model, what(e, snapshots), str(e.steps), str(e.evaluations), e.score))
    model_width, what_width, *_ = (max(map(len, column)) for column in zip(*lines))
    return '\n'.join(
        f'{model:<{model_width}}  {description:<{what_width}}  {steps:>5}  {evaluations:>11}  {score}'
        for model, description, steps, evaluations, score in lines
    )
