"""The table of a search's resolved settings that the terminal shows before the first candidate."""

from cm_jax import run_folder
from cm_jax.lcsc import ask_tell
from cm_jax.lcsc.job import RANDOM, SEARCH
from cm_jax.lcsc.session import Session, cost
from cm_jax.run_folder import weights_label
from cm_jax.terminal import table


def describe(session: Session) -> str:
    """Returns what a search is about to do, as a table for the terminal."""
    job = session.job
    budget, start, steps = job.settings.budget, job.states[SEARCH], job.steps
    groups = f', {job.space.groups} groups of weights' if job.space.groups > 1 else ''
    of_runs = f' of {len(job.runs)} runs' if len(job.runs) > 1 else ''
    first, seeds = len(ask_tell.profile_identities(start)), len(budget.selection_seeds)
    kept = f'report noise: {job.evaluation.samples:,} images x {len(job.evaluation.seeds)} seeds'
    each = 1 if start.method == 'gradient' else start.settings.population
    unit = 'steps' if start.method == 'gradient' else f'generations of {each}'
    random = ', and as many random ones' if RANDOM in job.states else ''
    images = 'images a step, new ones in each' if job.settings.is_descent else 'images a candidate'
    evaluations = sum(cost(job).values())
    return table(
        {
            'combines': f'{len(steps)} snapshots{of_runs}, steps {steps[0]} to {steps[-1]}, '
            f'{weights_label(job.settings.basis.ema)}{groups}\nof {job.origin()["workdir"]}',
            'minimises': f'{budget.metric or session.spaces[0].extractor.score}, by {budget.sampler}; '
            'lower is better',
            'method': f'{start.method}: {budget.generations:,} {unit}, from {first} averages{random}',
            'samples': f'{budget.samples:,} {images}',
            'chooses': f'the best {budget.finalists} and the averages again, on selection noise: '
            f'{seeds} seeds',
            'reports': f'the winner beside the averages, on {kept}',
            'cost': f'{evaluations:,} evaluations of the network, without the report',
            'devices': f'{session.mesh.size} x {session.mesh.devices.flat[0].device_kind}',
            'written': f'in {session.workdir}: the combined weights as a run, '
            f'{run_folder.REPORT}, pictures',
        }
    )
