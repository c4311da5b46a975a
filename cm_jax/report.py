"""Makes a page of a run, a search or a study: its curves, samples and scores in one HTML file.

    python -m cm_jax.report --workdir=runs/digits/ect

The page, `report.html` in the workdir, needs no other file. The workdir is the folder of

    a run       of any method, trained, imported or averaged; one that still trains has a page, too
    a search    finished or not
    a study     of methods, or of searches, as `launch/study.sh` makes them
    others      those of the quickstart: a comparison of the run folders `teacher`, `ect`, `lcsc` and,
                if it is there, `lcsc_gradient`

In a comparison the teacher is a diffusion model, the consistency model was tuned from it by ECT, and
LCSC is the combination of the consistency model's snapshots that a search has chosen. --lcsc names
other searches over the same snapshots, one or several:

    python -m cm_jax.report --workdir=runs/mine --lcsc=runs/one --lcsc=runs/other

A comparison also writes `results.json` (the table) and `results.png` (samples side by side). The table
has a column for each feature space that the searches report, and marks those that the search of a row
used: the others are second opinions.
"""

from collections.abc import Sequence

from absl import flags
from etils import epath

from cm_jax import cli
from cm_jax.bounds import Natural
from cm_jax.files import expanded, write_text
from cm_jax.reports import comparison, run_page, search_page, study_page
from cm_jax.reports.inputs import open_inputs
from cm_jax.reports.opinions import table
from cm_jax.run import open_run
from cm_jax.run_folder import CONFIG, PAGE, SEARCH

_WORKDIR = cli.workdir_flag('the folder of a run, a search, a study or a comparison')
_SAMPLES = cli.number_flag(
    'samples',
    10,
    'how many samples a page of a run or a search shows of each of some weights; 0 draws none, and '
    'runs no network',
    Natural,
)
_TEACHER = flags.DEFINE_string(
    'teacher', None, 'of a comparison: run folder; default: WORKDIR/teacher'
)
_ECT = flags.DEFINE_string('ect', None, 'of a comparison: run folder; default: WORKDIR/ect')
_LCSC = flags.DEFINE_multi_string(
    'lcsc',
    None,
    'of a comparison: folder of a search, repeatable; default: WORKDIR/lcsc and, if it is there, '
    'WORKDIR/lcsc_gradient',
)


def compare(workdir: epath.Path) -> None:
    """Writes the files of a comparison and prints its table."""
    teacher, ect, lcsc, gradient = (
        workdir / name for name in ('teacher', 'ect', 'lcsc', 'lcsc_gradient')
    )
    searches = _LCSC.value or [lcsc, *([gradient] if gradient.exists() else [])]
    inputs = open_inputs(
        epath.Path(expanded(_TEACHER.value or teacher)),
        epath.Path(expanded(_ECT.value or ect)),
        [epath.Path(expanded(folder)) for folder in searches],
    )
    print(table(comparison.write(workdir, inputs)) + '\n')


def main(argv: Sequence[str]) -> None:
    del argv
    workdir = cli.required_workdir(_WORKDIR)
    named = _TEACHER.value or _ECT.value or _LCSC.value
    if not named and (workdir / SEARCH).exists():
        write_text(workdir / PAGE, search_page.render(workdir, _SAMPLES.value))
    elif not named and (workdir / CONFIG).exists():
        write_text(workdir / PAGE, run_page.render(open_run(workdir), _SAMPLES.value))
    elif not named and study_page.is_study(workdir):
        write_text(workdir / PAGE, study_page.render(workdir))
    else:
        compare(workdir)
    print(f'report: {workdir / PAGE}')


if __name__ == '__main__':
    cli.run(main)
