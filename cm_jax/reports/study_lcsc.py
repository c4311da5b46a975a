"""A comparison of searches (LCSC) with each other and with averages, over several search seeds.

    python -m cm_jax.study --lcsc --workdir=runs/study/lcsc

It reads the searches WORKDIR/search/<use>/<method>/seed<k> that `launch/study.sh lcsc` makes, where k
is the seed of the search. It writes `study.json` (all numbers), `study.md` (the tables) and `study.png`
(scores over costs, see study_curves.py). The methods are those of study_searches.METHODS: a random
search, CMA-ES, evolution and the gradient, each on the first distance, and the gradient on two. The
uses are:

    consistency_N  searches over the snapshots of a consistency model's training run, sampled with N
                   network evaluations
    diffusion_N    those over the snapshots of a diffusion model
    cut            searches over a shorter training run. They are compared with `long`, to see whether a
                   search can take the place of a part of the training: use (a)
    long           a longer training run, of which only EMA* is scored
    more           searches after the run of `consistency_1` was trained on for a little, to see whether
                   a finished model can be made better: use (b)

All numbers are measured on report noise, by which nothing was chosen, in several feature spaces: that
of the score, in which all methods search; that in which the gradient searches too; and others, in which
none does, so that what was only learnt by heart shows.

Costs are counted in network evaluations of one image, of which a forward pass is 1 and a backward pass
2; a pass that is computed again counts again. An image in training costs TRAINING[objective]. The cost
of a search is that of all its candidates and steps on search noise and of its finalists on selection
noise. The scores by which windows and BEMA averages were chosen are counted apart; those of the
post-hoc averages and of the reports are not counted.
"""

from collections.abc import Mapping
from typing import Any

from etils import epath

from cm_jax.errors import UserError
from cm_jax.files import write_text
from cm_jax.plotting import save_figure
from cm_jax.reports.study_curves import Curve, curves, draw
from cm_jax.reports.study_numbers import Model, averages, columns, found, losses, ratios
from cm_jax.reports.study_searches import EVOLUTION, GRADIENT_TWO, USES, Searches, Use, open_use
from cm_jax.reports.study_tables import COMPARED, tables
from cm_jax.run_folder import write_json


def models(use: Use) -> list[Model]:
    """Returns the averages of a use, and what each of its methods found."""
    searched = [found(use, method) for method, searches in use.items() if is_search(searches)]
    return [*averages(use), *searched]


def is_search(searches: Searches) -> bool:
    """Returns whether there was anything to search: no generations score the averages alone."""
    return searches.settings.budget.generations > 0


def check_comparable(results: Mapping[str, list[Model]]) -> None:
    """Raises UserError, naming what differs, unless all models were scored in the same way."""
    first_use, (first, *_) = next(iter(results.items()))
    for use, found_in_use in results.items():
        for model in found_in_use:
            for name, protocol in first.protocols.items():
                theirs = model.protocols.get(name, {})
                differing = [key for key in protocol if theirs.get(key) != protocol[key]]
                if differing:
                    key = differing[0]
                    raise UserError(
                        f'{model.label} of {use} and {first.label} of {first_use} were not scored '
                        f'alike in {name}: {key} is {theirs.get(key)!r} and {protocol[key]!r}'
                    )


def numbers(use: Use, of: list[Model], drawn: Mapping[str, Curve]) -> dict[str, Any]:
    """Returns the numbers of a use for study.json."""
    base = use[EVOLUTION]
    plain: dict[str, Any] = {
        'snapshots': base.snapshots,
        'seeds': base.seeds,
        'training_cost': base.training_cost(),
        'baselines_cost': base.reports[0]['cost'].get('baselines'),
        'columns': columns(use)._asdict(),
        'models': [model.plain() for model in of],
    }
    if GRADIENT_TWO in use:
        plain['ratios'] = {name: score._asdict() for name, score in ratios(use).items()}
        plain['losses'] = losses(use)
    if drawn:
        plain['curves'] = {method: line._asdict() for method, line in drawn.items()}
    return plain


def write(workdir: epath.Path) -> str:
    """Writes the tables, the numbers behind them and the plot into `workdir`, and returns the tables.

    Raises UserError if searches are missing, not finished, or were not scored in the same way.
    """
    uses = {name: open_use(workdir / 'search' / name, methods) for name, methods in USES.items()}
    results = {name: models(use) for name, use in uses.items()}
    check_comparable(results)
    text = tables(uses)
    drawn = {name: curves(uses[name]) for name in COMPARED}
    plain = {name: numbers(use, results[name], drawn.get(name, {})) for name, use in uses.items()}
    write_json(workdir / 'study.json', plain)
    write_text(workdir / 'study.md', text)
    figure = draw({title: drawn[name] for name, title in COMPARED.items()})
    save_figure(workdir / 'study.png', figure)
    return text
