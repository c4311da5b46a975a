"""The rows of a report: the teacher, ECT, the best average of its weights, LCSC by each search.

A row is a score of one model's weights with one sampler, measured on report noise, in one or several
feature spaces. The first of them is that of the main score.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cm_jax.config import differences
from cm_jax.errors import UserError
from cm_jax.lcsc.identity import AVERAGES, LAST, LCSC
from cm_jax.metrics.protocol import COMPARABLE
from cm_jax.run import Run

NAMES = {'teacher': 'Teacher', 'ect': 'ECT', 'ema': 'Best average', 'lcsc': 'LCSC'}


class Report(NamedTuple):
    """What a search has reported."""

    search: str  # the search's name, mostly its method: 'evolution', 'gradient'
    searched: tuple[str, ...]  # the scores of the feature spaces that it used
    sampler: str  # the sampler of its candidates
    snapshots: int  # how many it combined
    rows: Sequence[Mapping[str, Any]]  # those of report.json


class Entry(NamedTuple):
    """One row of the report's table."""

    model: str  # a key of NAMES
    weights: str  # which weights of the model, e.g. 'ema 0.99', as the row's protocol names them
    row: Mapping[str, Any]  # the score and its protocol, as scores.jsonl or report.json holds them
    report: Report | None = None  # of the search that the row is from; None for the teacher

    @property
    def search(self) -> str:
        """The name of the search that the row is from; '' for the teacher."""
        return self.report.search if self.report else ''

    @property
    def searched(self) -> tuple[str, ...]:
        """The scores of the spaces that the row's own search used, for LCSC; () for other models."""
        return self.report.searched if self.report and self.model == 'lcsc' else ()

    @property
    def name(self) -> str:
        """The model's name; of LCSC with that of its search: 'LCSC (evolution)'."""
        name = NAMES[self.model]
        return f'{name} ({self.search})' if self.model == 'lcsc' else name

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
        return main_score(self.row)

    @property
    def value(self) -> float:
        """The score: its mean over the noise seeds. Lower is better."""
        return self.row[self.metric]

    @property
    def score(self) -> str:
        """The score and its standard deviation, '3.79 ± 0.11'; without the latter for one seed."""
        return number(self.row, self.metric)


def number(row: Mapping[str, Any], name: str) -> str:
    """Returns a number of a row and its standard deviation: '3.79 ± 0.11', '0.379', or '–' for none."""
    value, spread = row.get(name), row.get(f'{name}_std')
    if value is None:
        return '–'
    digits = 2 if value >= 1 else 3
    return f'{value:.{digits}f}' + ('' if spread is None else f' ± {spread:.{digits}f}')


def main_score(row: Mapping[str, Any]) -> str:
    """Returns the name of the main score of a row."""
    return row['protocol']['score'].rpartition('_')[0]


def protocols(row: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Returns the protocols of a row by the scores of its feature spaces, the main one first."""
    others = {score: details['protocol'] for score, details in row.get('others', {}).items()}
    return {main_score(row): row['protocol'], **others}


def values(row: Mapping[str, Any], score: str) -> list[float]:
    """Returns the score of each noise seed in one of the row's feature spaces."""
    return (row if score == main_score(row) else row['others'][score])['values']


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun: '1 step', '2 steps'."""
    return f'{number:,} {noun}{"" if number == 1 else "s"}'


def what(entry: Entry) -> str:
    """Returns what a row's model is, in a few words."""
    snapshots = entry.report.snapshots if entry.report else 0
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
    such scores, it is the one that was measured most like the row `like`, and among these the one with
    config.sampling.sampler. Raises UserError, with the command that makes it, if there is none.
    """
    sampling, step = run.settings.sampling, run.step()
    rows = [
        row
        for row in run.scores()
        if row['protocol']['ema'] == sampling.ema and row['protocol']['step'] == step
    ]

    wanted = {(score, protocol['id']) for score, protocol in protocols(like).items()}

    def preference(row: Mapping[str, Any]) -> tuple[bool, int, bool, bool, int]:
        protocol = row['protocol']
        found = {(score, other['id']) for score, other in protocols(row).items()}
        return (
            protocol['id'] == like['protocol']['id'],
            len(wanted & found),
            protocol['seeds'] == like['protocol']['seeds'],
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


def average_entries(reports: Sequence[Report]) -> list[Entry]:
    """Returns the rows of the searches' reports that are averages of weights, in their order.

    Searches over the same snapshots report the same averages; each is there once.
    """
    found: dict[tuple, Entry] = {}
    for report in reports:
        for row in report.rows:
            if row['kind'] in AVERAGES:
                key = row['label'], row['protocol']['sampler'], *row['values']
                found.setdefault(key, Entry('ema', row['label'], row, report))
    return list(found.values())


def report_entries(reports: Sequence[Report]) -> list[Entry]:
    """Returns, for each sampler of the searches, the last weights, the best average, and each LCSC.

    The best average has the lowest main score of all that any of the searches reports. Raises UserError
    if none of them reports the last weights and an average.
    """
    averages, entries = average_entries(reports), []
    of_model = {
        model: [
            Entry(model, row['label'], row, report)
            for report in reports
            for row in report.rows
            if row['kind'] == kind
        ]
        for model, kind in (('ect', LAST), ('lcsc', LCSC))
    }
    for spec in dict.fromkeys(entry.sampler for entry in of_model['lcsc']):
        lasts, emas, lcscs = (
            [entry for entry in some if entry.sampler == spec]
            for some in (of_model['ect'], averages, of_model['lcsc'])
        )
        if not lasts or not emas:
            raise UserError(
                f'no search reports the last weights and an average with {spec}: at least one of the '
                'searches must have been made with config.controls.reported = (), which is all'
            )
        entries += [lasts[0], min(emas, key=lambda entry: entry.value), *lcscs]
    return entries


def spaces(entries: Sequence[Entry]) -> list[str]:
    """Returns the scores of the feature spaces that the searches' reports have, the main one first."""
    lcscs = [entry for entry in entries if entry.model == 'lcsc']
    return list(dict.fromkeys(score for entry in lcscs for score in protocols(entry.row)))


def check_comparable(entries: Sequence[Entry]) -> None:
    """Raises UserError, naming what differs, unless the rows were measured alike in each space.

    All must have the same main score; not all need to be measured in the other spaces.
    """
    _check_alike([(entry, entry.row['protocol']) for entry in entries])
    for score in spaces(entries):
        found = [(entry, protocols(entry.row).get(score)) for entry in entries]
        _check_alike([(entry, protocol) for entry, protocol in found if protocol])


def _check_alike(measured: Sequence[tuple[Entry, Mapping[str, Any]]]) -> None:
    """Raises UserError unless the protocols of these rows have the same id."""
    last, expected = measured[-1]
    for entry, protocol in measured:
        if protocol['id'] != expected['id']:
            there, here = ({key: p[key] for key in COMPARABLE} for p in (protocol, expected))
            differing = differences(there, here)
            raise UserError(
                f'the scores of {entry.name} ({entry.sampler}, there) and {last.name} '
                f'({last.sampler}, here) are not comparable: {"; ".join(differing) or "other id"}. '
                'Evaluate both with the same samples, extractor and reference'
            )
