"""Study: `python -m cm_jax.study --workdir=runs/study/digits`.

Compares methods over training seeds. Reads the run folders WORKDIR/<method>/seed<k> that `evaluate`
has scored, and writes into WORKDIR `study.json` (a list of rows), `study.md` (the table) and
`study.png` (score over network evaluations, a line for each method): the mean over the seeds, and
their standard deviation. With --lcsc it reads searches, and what it writes is in study_lcsc.py.
`launch/study.sh` makes the runs and searches.
"""

from collections.abc import Sequence

from absl import flags
from etils import epath

from cm_jax import cli
from cm_jax.errors import UserError
from cm_jax.files import write_text
from cm_jax.reports import study_lcsc
from cm_jax.reports.study_methods import check_comparable, plot, rows_of, runs_of, table
from cm_jax.run_folder import write_json

_WORKDIR = cli.workdir_flag('the folder of the study')
_ORDER = flags.DEFINE_list('order', [], 'methods in the order of the table; the rest follow')
_LCSC = flags.DEFINE_bool('lcsc', False, 'a study of searches: launch/study.sh lcsc')


def methods(workdir: epath.Path) -> str:
    """Writes the comparison of methods; its table."""
    runs = runs_of(workdir)
    missing = [method for method in _ORDER.value if method not in runs]
    if missing:
        raise UserError(f'{workdir} has no {missing[0]}; there are: {", ".join(runs)}')
    order = [*_ORDER.value, *(method for method in runs if method not in _ORDER.value)]
    rows = [row for method in order for row in rows_of(method, runs[method])]
    check_comparable(rows)
    write_json(workdir / 'study.json', rows)
    write_text(workdir / 'study.md', table(rows))
    plot(rows, workdir / 'study.png')
    return table(rows)


def main(argv: Sequence[str]) -> None:
    del argv
    workdir = cli.required_workdir(_WORKDIR)
    print((study_lcsc.write if _LCSC.value else methods)(workdir), end='')
    print(f'written: {workdir}/study.md, study.json, study.png')


if __name__ == '__main__':
    cli.run(main)
