"""A comparison of searches (LCSC) with each other and with averages, over several search seeds.

    python -m cm_jax.study --lcsc --workdir=runs/study/lcsc

It reads the searches WORKDIR/search/<use>/seed<k> that `launch/study.sh lcsc` makes, where k is the
seed of the search. It writes `study.json` (all numbers), `study.md` (the tables) and `study.png` (the
distance of the diffusion model over its network evaluations). The uses are:

    consistency  a search over the snapshots of a consistency model's training run
    diffusion_N  a search over those of a diffusion model, sampled with N network evaluations
    cut          a search over a shorter training run. It is compared with `long`, to see whether a
                 search can take the place of a part of the training: use (a)
    long         a longer training run, of which only the averages are scored
    more         a search after the run of `consistency` was trained on for a little, to see whether a
                 finished model can be made better: use (b)

All distances are measured on report noise, by which nothing was chosen. LCSC and the random search have
a result for each search seed. All other models have one result, because it does not depend on the
search. Two spreads are given: the standard deviation over the sets of report noise (the root of the
variance's mean over the searches), and that over the search seeds.

Costs are counted in network evaluations of one image, of which a forward pass is 1 and a backward pass
2. An image in training costs TRAINING[objective]. An image that is generated for a candidate costs the
sampler's evaluations. The cost of a search is that of all its candidates on search noise and of its
finalists on selection noise. The scores by which EMA* and the other averages were chosen are not
counted, and neither are the scores of the reports.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from cm_jax.errors import UserError, check_name
from cm_jax.files import write_text
from cm_jax.lcsc.identity import EMA_STAR, LCSC, RANDOM
from cm_jax.lcsc.selection import read_rows
from cm_jax.metrics.protocol import COMPARABLE
from cm_jax.reports.study_methods import SEED, check_comparable, plot
from cm_jax.run import Run, open_run
from cm_jax.run_folder import COEFFICIENTS, REPORT, SEARCH, write_json
from cm_jax.settings import SearchSettings, parse_search

# Network evaluations of an image in training, by objective: 3 for the pass of the network forward and
# back, and 1 more where a target is computed by another pass forward.
TRAINING = {'edm': 3, 'ect': 4}
COSTS = ('search', 'selection')  # the parts of a report's cost that are the search's own
SEARCHED = (LCSC, RANDOM)  # the kinds of models that have a result for each search seed
USES = ('consistency', 'cut', 'long', 'more')
DIFFUSION = re.compile(r'diffusion_(\d+)')


class Searches(NamedTuple):
    """The searches of one use: what those of all search seeds have written."""

    folder: epath.Path  # of the use
    run: Run  # the training run that was searched
    reports: list[dict[str, Any]]  # the report.json of each search
    settings: list[SearchSettings]  # of each search
    snapshots: int  # how many were combined

    def rows(self, kind: str) -> list[dict[str, Any]]:
        """Returns, from each report, the row of the model of this kind (see lcsc.identity).

        A row is that of the sampler that was searched with. Raises UserError if a report has none.
        """
        rows = []
        for report, settings in zip(self.reports, self.settings):
            spec = settings.budget.sampler
            candidates = [row for row in report['rows'] if row['protocol']['sampler'] == spec]
            row = next((row for row in candidates if row['kind'] == kind), None)
            if row is None:
                raise UserError(
                    f'{self.folder}: a report has no {kind} with {spec}; it has: '
                    f'{", ".join(row["label"] for row in candidates) or "none"}'
                )
            rows.append(row)
        return rows

    def training_cost(self) -> int:
        """Returns how many network evaluations the training run took.

        Raises UserError if those of its objective are not known.
        """
        name = self.run.settings.objective['name']
        check_name('objective of a run in the study', name, TRAINING)
        return self.run.settings.images_seen() * TRAINING[name]

    def search_cost(self) -> float:
        """Returns how many network evaluations a search took, as the mean over the search seeds."""
        each = [sum(report['cost'][part] for part in COSTS) for report in self.reports]
        return float(np.mean(each))


def open_searches(folder: epath.Path) -> Searches:
    """Opens the searches folder/seed<k> of one use.

    Raises UserError if there are none, or if one is not finished.
    """
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


def entry(searches: Searches, kind: str) -> dict[str, Any]:
    """Returns the numbers of the model of this kind.

    They are its mean distance, and the spreads over the sets of report noise (`std_noise`) and over the
    search seeds (`std_search`, None where there is one result).
    """
    rows = searches.rows(kind)
    values = np.array([row['values'] for row in rows])  # [searches, noise sets]
    if kind not in SEARCHED:
        values = values[:1]  # the same in every search
    means = values.mean(axis=1)
    return {
        'method': kind,
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
    """Returns the numbers of every model of the reports, in the order of the first report."""
    kinds = dict.fromkeys(row['kind'] for row in searches.reports[0]['rows'])
    return [entry(searches, kind) for kind in kinds]


def mean_and_spreads(entry: Mapping[str, Any]) -> str:
    """Returns '8.58 ± 0.37 ± 0.11': the mean, and its spreads over noise sets and over search seeds.

    The last is left out where there is one result.
    """
    spreads = [s for s in (entry['std_noise'], entry['std_search']) if s is not None]
    return ' ± '.join(f'{value:.2f}' for value in (entry['mean'], *spreads))


def wins(searches: Searches) -> str:
    """Returns a sentence: in how many searches the distance of LCSC is at most that of EMA*."""
    won = [
        np.mean(lcsc['values']) <= np.mean(ema_star['values'])
        for lcsc, ema_star in zip(searches.rows(LCSC), searches.rows(EMA_STAR))
    ]
    return f'LCSC is at or below EMA* in {sum(won)} of {len(won)} searches.'


def markdown(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Returns a Markdown table."""
    lines = [header, ['---'] * len(header), *rows]
    return ''.join(f'| {" | ".join(map(str, line))} |\n' for line in lines)


def comparison(title: str, searches: Searches) -> str:
    """Returns the section of one use: a table with every model of its reports."""
    models = entries(searches)
    rows = [[model['label'], model['evaluations'], mean_and_spreads(model)] for model in models]
    header = ['weights', 'evaluations', f'`{models[0]["score"]}`, mean ± noise ± search']
    text = f'{searches.snapshots} snapshots, {len(searches.reports)} search seeds. {wins(searches)}'
    return f'### {title}\n\n{markdown(header, rows)}\n{text}\n'


def cost_row(name: str, searches: Searches, kind: str, cost_before: int = 0) -> list[Any]:
    """Returns the row [name, distance, cost of training, cost of the search] of a model.

    Costs are in million network evaluations. `cost_before`, in network evaluations, is the cost of an
    earlier training run that this one started from.
    """
    training = cost_before + searches.training_cost()
    search = searches.search_cost() if kind == LCSC else 0
    distance = mean_and_spreads(entry(searches, kind))
    return [name, distance, round(training / 1e6, 3), round(search / 1e6, 3)]


def costs(title: str, rows: Sequence[Sequence[Any]]) -> str:
    """Returns a section with a table of `cost_row`s: distances beside what they cost.

    The last column is the whole cost of the first row, divided by that of the row.
    """
    header = ['weights', 'distance', 'training', 'search', "first row's cost over this one's"]
    first_cost = sum(rows[0][2:])
    table = markdown(header, [[*row, f'{first_cost / sum(row[2:]):.2f}'] for row in rows])
    return f'### {title}\n\n{table}\nCosts in million network evaluations of an image.\n'


def curve(diffusion: Mapping[int, Searches]) -> str:
    """Returns the section of the diffusion model: a table of distances over network evaluations.

    `diffusion` are its searches by their number of evaluations.
    """
    rows = []
    for _, searches in sorted(diffusion.items()):
        ema_star, lcsc = entry(searches, EMA_STAR), entry(searches, LCSC)
        rows.append([lcsc['evaluations'], mean_and_spreads(ema_star), mean_and_spreads(lcsc)])
    text = '### A diffusion model: distance over evaluations\n\n'
    text += markdown(['evaluations', 'EMA*', 'LCSC'], rows)
    if {9, 15} <= diffusion.keys():
        lcsc_at_9 = mean_and_spreads(entry(diffusion[9], LCSC))
        ema_star_at_15 = mean_and_spreads(entry(diffusion[15], EMA_STAR))
        text += f'\nLCSC at 9 evaluations: {lcsc_at_9}; EMA* at 15: {ema_star_at_15}.\n'
    return text


def points(diffusion: Mapping[int, Searches]) -> list[dict[str, Any]]:
    """Returns the numbers of `curve` as rows for study_methods.plot.

    They make two lines, EMA* and LCSC, whose bars are the spread over the sets of report noise.
    """
    models = [
        entry(searches, kind)
        for kind in (EMA_STAR, LCSC)
        for _, searches in sorted(diffusion.items())
    ]
    return [model | {'std': model['std_noise']} for model in models]


def tables(uses: Mapping[str, Searches], diffusion: Mapping[int, Searches]) -> str:
    """Returns all sections of study.md.

    `uses` are the searches of USES, and `diffusion` those of the diffusion model by their number of
    network evaluations. Of the latter, only uses with several search seeds get a table of their own.
    """
    several = [n for n, searches in sorted(diffusion.items()) if len(searches.reports) > 1]
    parts = [comparison('A consistency model', uses['consistency'])]
    parts += [comparison(f'A diffusion model, {n} evaluations', diffusion[n]) for n in several]
    long, cut, more = (uses[name] for name in ('long', 'cut', 'more'))
    rows = [
        cost_row('long run, EMA*', long, EMA_STAR),
        cost_row('short run, EMA*', cut, EMA_STAR),
        cost_row('short run, LCSC', cut, LCSC),
    ]
    parts.append(costs('Use (a): less training, and a search', rows))
    before = uses['consistency'].training_cost()
    rows = [
        cost_row('finished run, EMA*', uses['consistency'], EMA_STAR),
        cost_row('trained on, EMA*', more, EMA_STAR, before),
        cost_row('trained on, LCSC', more, LCSC, before),
    ]
    parts.append(costs('Use (b): a finished run, trained on for a little and searched', rows))
    return '\n'.join([*parts, curve(diffusion)])


def write(workdir: epath.Path) -> str:
    """Writes the tables, the numbers behind them and the plot into `workdir`, and returns the tables.

    Raises UserError if searches are missing, not finished, or were not scored in the same way.
    """
    uses = {name: open_searches(workdir / 'search' / name) for name in USES}
    diffusion = {
        int(match[1]): open_searches(path)
        for path in sorted((workdir / 'search').glob('diffusion_*'))
        if (match := DIFFUSION.fullmatch(path.name))
    }
    if not diffusion:
        raise UserError(f'{workdir}/search holds no diffusion_<evaluations> searches')
    results = {name: entries(searches) for name, searches in uses.items()}
    results |= {f'diffusion_{n}': entries(searches) for n, searches in sorted(diffusion.items())}
    check_comparable([model for models in results.values() for model in models])
    text = tables(uses, diffusion)
    write_json(workdir / 'study.json', results)
    write_text(workdir / 'study.md', text)
    plot(points(diffusion), workdir / 'study.png')
    return text
