"""The study of LCSC: `python -m cm_jax.study --lcsc --workdir=runs/study/lcsc`.

Reads the searches WORKDIR/search/<use>/seed<k> that `launch/study.sh lcsc` makes, seed<k> that of the
search, and writes `study.json`, `study.md` (the tables) and `study.png` (the diffusion model's
distance over evaluations). The uses:

    consistency  one training run's window, a consistency model
    diffusion_N  one training run's window, a diffusion model at N evaluations
    cut          a shorter run, to be compared with `long`, a longer one that is not searched: training
                 cost cut (use a)
    more         the run of `consistency`, finished, trained on for a little: enhanced (use b)

Every number is on report noise. Of LCSC and the random search there is one a search seed; the rest
does not depend on it. Spreads: over the sets of report noise (the mean over the searches, of the
variance), and over the search seeds.

Cost is counted in network evaluations of one image: 1 forward, 2 backward. An image in training costs
TRAINING[objective]; one that is sampled for a candidate, the sampler's evaluations. A search's cost is
all its candidates' on search noise and its finalists' on selection noise; EMA* is given its own for
nothing, and nobody's report is counted.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from cm_jax.errors import UserError, check_name
from cm_jax.files import write_text
from cm_jax.lcsc.selection import read_rows
from cm_jax.metrics.protocol import COMPARABLE
from cm_jax.reports.study_methods import SEED, check_comparable, plot
from cm_jax.run import Run, open_run
from cm_jax.run_folder import COEFFICIENTS, REPORT, SEARCH, write_json
from cm_jax.settings import SearchSettings, parse_search

# Network evaluations of an image in training: the student's pass forward and back, 3; the target's.
TRAINING = {'edm': 3, 'ect': 4}
SEARCHED = ('lcsc', 'random')  # of these there is one a search seed
USES = ('consistency', 'cut', 'long', 'more')
DIFFUSION = re.compile(r'diffusion_(\d+)')


class Searches(NamedTuple):
    """The searches of one use, by seed: what each left in its folder."""

    folder: epath.Path
    run: Run  # the training run
    reports: list[dict[str, Any]]  # report.json
    settings: list[SearchSettings]
    snapshots: int

    def rows(self, wanted: str) -> list[dict[str, Any]]:
        """A model's row of each report, of the sampler that was searched with."""
        found = []
        for report, settings in zip(self.reports, self.settings):
            spec = settings.budget.sampler
            mine = [r for r in report['rows'] if r['protocol']['sampler'] == spec]
            chosen = [row for row in mine if row['kind'] == wanted]
            if not chosen:
                raise UserError(
                    f'{self.folder}: a report has no {wanted} with {spec}; it has: '
                    f'{", ".join(row["label"] for row in mine) or "none"}'
                )
            found.append(chosen[0])
        return found

    def training_cost(self) -> int:
        """Network evaluations that the training run took."""
        name = self.run.settings.objective['name']
        check_name('objective of a run in the study', name, TRAINING)
        return self.run.settings.steps * self.run.settings.batch_size * TRAINING[name]

    def search_cost(self) -> float:
        """Network evaluations of a search, the mean over the seeds."""
        return float(np.mean([sum(report['cost'].values()) for report in self.reports]))


def open_searches(folder: epath.Path) -> Searches:
    """The searches folder/seed<k>. Raises UserError where there are none or one is not finished."""
    paths = [path for path in sorted(folder.glob('seed*')) if SEED.fullmatch(path.name)]
    if not paths:
        raise UserError(f'{folder} holds no seed<k> searches: bash launch/study.sh lcsc makes them')
    for path in paths:
        if not (path / REPORT).exists():
            raise UserError(f'{path} has no report.json: its search is not finished')
    reports, settings, combinations = (
        [json.loads((path / name).read_text()) for path in paths]
        for name in (REPORT, SEARCH, COEFFICIENTS)
    )
    return Searches(
        folder=folder,
        run=open_run(combinations[0]['workdir']),
        reports=[report | {'rows': read_rows(report['rows'])} for report in reports],
        settings=[parse_search(config) for config in settings],
        snapshots=len(combinations[0]['steps']),
    )


def entry(searches: Searches, wanted: str) -> dict[str, Any]:
    """A model's numbers: its mean, and the spreads over noise sets and over search seeds."""
    rows = searches.rows(wanted)
    values = np.array([row['values'] for row in rows])  # [searches, noise sets]
    if wanted not in SEARCHED:
        values = values[:1]
    means = values.mean(axis=1)
    return {
        'method': wanted,
        'label': rows[0]['label'],
        'evaluations': rows[0]['protocol']['evaluations'],
        'score': rows[0]['protocol']['score'],
        'mean': float(means.mean()),
        'std_noise': float(np.sqrt(values.var(axis=1, ddof=1).mean())),
        'std_search': float(means.std(ddof=1)) if len(means) > 1 else None,
        'values': means.tolist(),
        'protocol': {key: rows[0]['protocol'][key] for key in COMPARABLE},
    }


def entries(searches: Searches) -> list[dict[str, Any]]:
    """Every model of the reports, in their order."""
    kinds = dict.fromkeys(row['kind'] for row in searches.reports[0]['rows'])
    return [entry(searches, wanted) for wanted in kinds]


def shown(entry: Mapping[str, Any]) -> str:
    """'8.58 ± 0.37 ± 0.11': the spread over noise sets, and over search seeds where there are any."""
    spreads = [s for s in (entry['std_noise'], entry['std_search']) if s is not None]
    return ' ± '.join(f'{value:.2f}' for value in (entry['mean'], *spreads))


def wins(searches: Searches) -> str:
    """In how many searches LCSC is at or below EMA*."""
    pairs = zip(searches.rows('lcsc'), searches.rows('ema*'))
    won = [np.mean(a['values']) <= np.mean(b['values']) for a, b in pairs]
    return f'LCSC is at or below EMA* in {sum(won)} of {len(won)} searches.'


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ['---'] * len(header), *rows]
    return ''.join(f'| {" | ".join(map(str, line))} |\n' for line in lines)


def comparison(title: str, searches: Searches) -> str:
    """The table of one run: every model of its reports."""
    found = entries(searches)
    rows = [[e['label'], e['evaluations'], shown(e)] for e in found]
    header = ['weights', 'evaluations', f'`{found[0]["score"]}`, mean ± noise ± search']
    text = f'{searches.snapshots} snapshots, {len(searches.reports)} search seeds. {wins(searches)}'
    return f'### {title}\n\n{markdown(header, rows)}\n{text}\n'


def costed(name: str, searches: Searches, wanted: str, more: int = 0) -> list[Any]:
    """[what, distance, cost of training, of search], costs in million network evaluations; `more` is
    what was trained before."""
    trained = more + searches.training_cost()
    spent = searches.search_cost() if wanted == 'lcsc' else 0
    return [name, shown(entry(searches, wanted)), *(round(c / 1e6, 3) for c in (trained, spent))]


def costs(title: str, rows: Sequence[Sequence[Any]]) -> str:
    """A table of distances beside what they cost; the last column is the first row's cost over
    the row's."""
    header = ['weights', 'distance', 'training', 'search', "first row's cost over this one's"]
    base = sum(rows[0][2:])
    table = markdown(header, [[*row, f'{base / sum(row[2:]):.2f}'] for row in rows])
    return f'### {title}\n\n{table}\nCosts in million network evaluations of an image.\n'


def curve(found: Mapping[int, Searches]) -> str:
    """The diffusion model's distance over evaluations."""
    pairs = [(entry(s, 'ema*'), entry(s, 'lcsc')) for _, s in sorted(found.items())]
    rows = [[lcsc['evaluations'], shown(ema), shown(lcsc)] for ema, lcsc in pairs]
    text = '### A diffusion model: distance over evaluations\n\n'
    text += markdown(['evaluations', 'EMA*', 'LCSC'], rows)
    if {9, 15} <= found.keys():
        ema, lcsc = entry(found[15], 'ema*'), entry(found[9], 'lcsc')
        text += f'\nLCSC at 9 evaluations: {shown(lcsc)}; EMA* at 15: {shown(ema)}.\n'
    return text


def points(found: Mapping[int, Searches]) -> list[dict[str, Any]]:
    """The same for `plot`: two lines, whose bars are the spread over noise sets."""
    entries = (entry(s, model) for model in ('ema*', 'lcsc') for _, s in sorted(found.items()))
    return [e | {'std': e['std_noise']} for e in entries]


def tables(uses: Mapping[str, Searches], diffusion: Mapping[int, Searches]) -> str:
    """All of them, as Markdown."""
    several = [n for n, searches in sorted(diffusion.items()) if len(searches.reports) > 1]
    parts = [comparison('A consistency model', uses['consistency'])]
    parts += [comparison(f'A diffusion model, {n} evaluations', diffusion[n]) for n in several]
    long, cut, more = (uses[name] for name in ('long', 'cut', 'more'))
    rows = [
        costed('long run, EMA*', long, 'ema*'),
        costed('short run, EMA*', cut, 'ema*'),
        costed('short run, LCSC', cut, 'lcsc'),
    ]
    parts.append(costs('Use (a): less training, and a search', rows))
    before = uses['consistency'].training_cost()
    rows = [
        costed('finished run, EMA*', uses['consistency'], 'ema*'),
        costed('trained on, EMA*', more, 'ema*', before),
        costed('trained on, LCSC', more, 'lcsc', before),
    ]
    parts.append(costs('Use (b): a finished run, trained on for a little and searched', rows))
    return '\n'.join([*parts, curve(diffusion)])


def write(workdir: epath.Path) -> str:
    """Writes the tables, the numbers behind them and the plot; the tables."""
    uses = {name: open_searches(workdir / 'search' / name) for name in USES}
    diffusion = {
        int(match[1]): open_searches(path)
        for path in sorted((workdir / 'search').glob('diffusion_*'))
        if (match := DIFFUSION.fullmatch(path.name))
    }
    if not diffusion:
        raise UserError(f'{workdir}/search holds no diffusion_<evaluations> searches')
    found = {name: entries(searches) for name, searches in uses.items()}
    found |= {f'diffusion_{n}': entries(searches) for n, searches in sorted(diffusion.items())}
    check_comparable([row for rows in found.values() for row in rows])
    text = tables(uses, diffusion)
    write_json(workdir / 'study.json', found)
    write_text(workdir / 'study.md', text)
    plot(points(diffusion), workdir / 'study.png')
    return text
