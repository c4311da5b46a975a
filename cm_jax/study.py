"""Compares training methods, or searches, over several seeds: as a table and a plot.

    python -m cm_jax.study --workdir=runs/study/digits
    python -m cm_jax.study --workdir=runs/study/lcsc --lcsc

Without --lcsc it compares methods over training seeds. It reads the run folders
WORKDIR/<method>/seed<k>, which `evaluate` must have scored, and writes three files into WORKDIR: the
rows `study.json`, the table `study.md`, and `study.png`, the score over the number of network
evaluations with a line for each method. A score is the mean over the seeds with their standard
deviation. With --lcsc it compares searches, as cm_jax/reports/study_lcsc.py explains.

`launch/study.sh` makes the runs and the searches.
"""

from collections.abc import Sequence

from absl import flags
from etils import epath

from cm_jax import cli
from cm_jax.errors import UserError
from cm_jax.files import write_text
from cm_jax.plotting import save_figure
from cm_jax.reports import study_lcsc
from cm_jax.reports.study_methods import check_comparable, plot, rows_of, runs_of, table
from cm_jax.run_folder import write_json

_WORKDIR = cli.workdir_flag('the folder of the study')
_ORDER = flags.DEFINE_list(
    'order', [], 'the methods that come first in the table, in this order; the others follow'
)
_LCSC = flags.DEFINE_bool(
    'lcsc', False, 'compare the searches that `launch/study.sh lcsc` makes, not methods'
)


def write_methods(workdir: epath.Path) -> str:
    """Writes the files of the comparison of methods into `workdir`, and returns its table.

    Raises UserError if a method of --order has no run, if a run has no scores, or if the runs were not
    scored in the same way.
    """
    runs = runs_of(workdir)
    missing = [method for method in _ORDER.value if method not in runs]
    if missing:
        raise UserError(f'{workdir} has no {missing[0]}; there are: {", ".join(runs)}')
    order = [*_ORDER.value, *(method for method in runs if method not in _ORDER.value)]
    rows = [row for method in order for row in rows_of(method, runs[method])]
    check_comparable(rows)
    write_json(workdir / 'study.json', rows)
    write_text(workdir / 'study.md', table(rows))
    save_figure(workdir / 'study.png', plot(rows))
    return table(rows)


def main(argv: Sequence[str]) -> None:
    del argv
    workdir = cli.required_workdir(_WORKDIR)
    print((study_lcsc.write if _LCSC.value else write_methods)(workdir), end='')
    print(f'written: {workdir}/study.md, study.json, study.png')


if __name__ == '__main__':
    cli.run(main)
