"""Opens a run folder and reads its config, steps, weights, samples and metrics, e.g. in a notebook.

run = open_run('runs/quickstart/ect')
run.steps()                                  # the trajectory
weights = run.params(step=None, ema='0.99')  # numpy, no device mesh needed; or 'posthoc0.07'
images = run.sample(weights, 'multistep@80,0.8', count=64, seed=0)
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from cm_jax import checkpoint, run_folder, sharding
from cm_jax.config import differences
from cm_jax.core import ema as averages
from cm_jax.core import tree
from cm_jax.errors import UserError, check_name, listed
from cm_jax.files import expanded, read_json_lines, unsealed
from cm_jax.generate import build_sampler, check_sampler, make_generator
from cm_jax.metrics.features import to_bytes
from cm_jax.run_folder import (
    DATA_CARD,
    METRICS,
    RAW,
    RESUME,
    SCORES,
    TRAJECTORY,
    TUNED_LEVELS,
    averages_in,
    item_name,
)
from cm_jax.samplers import GenerativeModel, Guide, parse_autoguidance, parse_guide
from cm_jax.settings import RunSettings, parse_run
from cm_jax.terminal import progress
from cm_jax.types import Params
from cm_jax.wiring import Parts, beside, wire

# The name 'posthoc0.07' stands for the power-function average that is combined from stored ones.
POSTHOC = 'posthoc'
# A post-hoc average is refused if the relative error of its profile is larger.
MAX_ERROR = 0.05
BATCH = 256  # samples that one program makes


class Term(NamedTuple):
    """One term of the sum that is a post-hoc average: a stored average and its coefficient."""

    step: int
    ema: str
    coefficient: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder that `open_run` opened. Its methods read files and never write."""

    workdir: epath.Path
    config: ConfigDict  # with all defaults and overrides resolved
    settings: RunSettings  # the same config, parsed
    card: Mapping[str, Any]  # describes the data that the weights were trained on
    parts: Parts

    def steps(self) -> list[int]:
        """Returns the steps of the trajectory, ascending."""
        return checkpoint.list_steps(self.workdir / TRAJECTORY)

    def step(self, step: int | None = None) -> int:
        """Returns `step`, or the last step if it is None. Raises UserError if there is no such step.

        Warns if the last step that training has saved is gone, so that an earlier one is the last.
        """
        steps = self.steps()
        if not steps:
            raise UserError(f'{self.workdir} has no trajectory step yet: it was not trained')
        if step is None:
            trained, last = self._trained()
            due = (self.settings.trajectory.due(s, last) for s in range(steps[-1] + 1, trained + 1))
            if any(due):
                warnings.warn(
                    f'{self.workdir / TRAJECTORY} has lost its last snapshots: training came to step '
                    f'{trained}, and step {steps[-1]} is taken',
                    stacklevel=2,
                )
            return steps[-1]
        if step not in steps:
            raise UserError(f'{self.workdir} has no step {step}; there are {listed(steps)}')
        return step

    def emas(self, step: int | None = None) -> list[str]:
        """Returns the names of the averages that are stored at a step."""
        return averages_in(self.workdir / TRAJECTORY / str(self.step(step)))

    def stored(self, step: int) -> list[str]:
        """Returns the names of what is stored at a step: RAW, unless it has none, and averages.

        Raises UserError if nothing is.
        """
        has_weights = (self.workdir / TRAJECTORY / str(step) / item_name(RAW)).exists()
        stored = [*([RAW] if has_weights else []), *self.emas(step)]
        if not stored:
            raise UserError(f'step {step} in {self.workdir / TRAJECTORY} is damaged: it is empty')
        return stored

    def lost_snapshots(self) -> str:
        """Returns a line that names the snapshots that its training saved and that are gone, or ''.

        The newest training state says how far the run has come; without one nothing is known.
        """
        trained, last = self._trained()
        if trained < 0:
            return ''
        return run_folder.lost_snapshots(self.workdir, self.settings.trajectory, trained, last)

    def _trained(self) -> tuple[int, int]:
        """Returns the step of the newest training state, or -1 if there is none, and the run's last."""
        trained = checkpoint.list_steps(self.workdir / RESUME)
        if not trained or self.settings.steps is None:
            return -1, -1
        return trained[-1], self.settings.steps

    def check_ema(self, step: int, ema: str) -> None:
        """Raises UserError unless the average `ema` is stored at a step or can be made there."""
        if ema.startswith(POSTHOC):
            self.posthoc(step, ema)
        elif ema != RAW:
            check_name(f'average of step {step} in {self.workdir}', ema, self.emas(step))
        elif RAW not in self.stored(step):
            averages_there = ', '.join(self.emas(step))
            raise UserError(
                f'{self.workdir} has no weights themselves of step {step}, only averages of them: '
                f'{averages_there}; name one, or {POSTHOC}SIGMA_REL'
            )

    def params(self, step: int | None = None, ema: str = RAW) -> Params:
        """Returns the weights of a step, or of the last if it is None, as nested dicts of numpy arrays.

        `ema` is RAW for the weights themselves, one of `emas(step)`, or 'posthoc' followed by a
        sigma_rel (see `posthoc`). Raises UserError if the run has no such step or average.
        """
        step = self.step(step)
        if ema.startswith(POSTHOC):
            terms = self.posthoc(step, ema)
            stored = (self.params(term.step, term.ema) for term in terms)
            return tree.weighted_sum([term.coefficient for term in terms], stored)
        self.check_ema(step, ema)
        return checkpoint.load(self.workdir / TRAJECTORY, step, item_name(ema))

    def posthoc(self, step: int, ema: str) -> list[Term]:
        """Returns the terms whose sum is the post-hoc average `ema`, e.g. 'posthoc0.07', of `step`.

        The terms are all power-function averages that the trajectory holds up to that step, with
        their coefficients (`core.ema.posthoc`). Raises UserError if there are none, or if the profile
        of their sum is off by more than MAX_ERROR.
        """
        try:
            sigma_rel = float(ema.removeprefix(POSTHOC))
        except ValueError:
            raise UserError(f'{POSTHOC} takes a number, as in {POSTHOC}0.07; got {ema!r}') from None
        averages.sigma_rel_to_gamma(sigma_rel)  # raises UserError if it is out of range
        stored = [
            (stored_step, name, float(name.removeprefix(averages.POWER)))
            for stored_step in self.steps()
            if 0 < stored_step <= step
            for name in self.emas(stored_step)
            if name.startswith(averages.POWER)
        ]
        if not stored:
            raise UserError(
                f'{ema} is made of stored power-function averages, and {self.workdir} has none up to '
                f'step {step}: training stores them with config.ema_sigma_rels, e.g. (0.05, 0.1), and '
                'config.trajectory.emas=True'
            )
        steps, names, sigma_rels = zip(*stored)
        coefficients, error = averages.posthoc(steps, sigma_rels, step, sigma_rel)
        if error > MAX_ERROR:
            raise UserError(
                f'{ema} of step {step} is out of the range of the {len(stored)} averages stored '
                f'({", ".join(sorted(set(names)))}; steps {steps[0]} to {steps[-1]}): its profile '
                f'would be {error:.0%} off, over {MAX_ERROR:.0%}. Choose a sigma_rel nearer to '
                'theirs; in training, config.trajectory.emas=True and a smaller '
                'config.trajectory.every widen the range'
            )
        return [
            Term(step=stored_step, ema=name, coefficient=float(coefficient))
            for stored_step, name, coefficient in zip(steps, names, coefficients)
        ]

    def project(self, params: Params) -> Params:
        """Returns weights as numpy arrays, with the network's constraint enforced (models.Model)."""
        return jax.tree.map(np.asarray, self.parts.model.project(params))

    def generator(self, spec: str, count: int) -> Callable[[Params, int], np.ndarray]:
        """Returns `generate(params, seed)`, which gives `count` samples: uint8 [count,H,W,C].

        `spec` describes the sampler. The bytes are those of config.evaluation.bytes. The program is
        compiled once for all weights and seeds; it makes at most BATCH samples at a time.
        """
        model, mesh, batch = self.guided_model([spec]), sharding.make_mesh(), min(count, BATCH)
        finish = functools.partial(to_bytes, rule=self.settings.evaluation.bytes)
        generate = make_generator(model, build_sampler(spec, model), mesh, batch, finish)

        def samples(params: Params, seed: int) -> np.ndarray:
            firsts = range(0, count, batch)
            parts = [
                generate(params, seed, first)
                for first in progress(firsts, len(firsts), 'sampling:', 'batches', leave=False)
            ]
            return np.concatenate(parts)[:count]

        return samples

    def sample(self, params: Params, spec: str, count: int, seed: int = 0) -> np.ndarray:
        """Returns `count` samples of the sampler that `spec` describes: uint8 [count,H,W,C]."""
        return self.generator(spec, count)(params, seed)

    def guided_model(self, specs: Iterable[str]) -> GenerativeModel:
        """Returns the generative model of the run with the runs opened that guide these samplers.

        Raises UserError if one of them is no run with these weights, or is of other images, classes or
        another process.
        """
        model = self.parts.generative_model
        built = [check_sampler(spec, model) for spec in specs]
        guides = dict.fromkeys(sampler.guide for sampler in built if sampler.guide)
        return model._replace(guides={guide: self._open_guide(guide) for guide in guides})

    def _open_guide(self, guide: str) -> Guide:
        folder, step, ema = parse_guide(guide)
        other = open_run(folder)
        step = other.step(step)
        other.check_ema(step, ema)
        differing = differences(_kind_of_samples(other), _kind_of_samples(self))
        if differing:
            raise UserError(f'guide {folder} does not fit {self.workdir}: {"; ".join(differing)}')
        denoise = beside(self.settings, other.parts.generative_model.denoise)
        return Guide(denoise, functools.partial(other.params, step, ema))

    def tuned(self) -> list[dict[str, Any]]:
        """Returns the records of tuned_levels.json, the newest last; [] if there is no such file."""
        path = self.workdir / TUNED_LEVELS
        if not path.exists():
            return []
        parse = lambda records: [unsealed(record) for record in records]  # noqa: E731
        return run_folder.read_record(self.workdir, TUNED_LEVELS, parse)

    def sampler_spec(self, spec: str, step: int, ema: str) -> str:
        """Returns the full description of the sampler `spec`.

        'tuned', or 'tuned@n' for n levels, is replaced by the sampler that tune_levels chose last for
        these weights, and a run that guides gets its last step if none is written. Any other
        description is returned as it is. Raises UserError if no levels were tuned for these weights.
        """
        bare, weight, guide = parse_autoguidance(spec)
        if guide:
            folder, guide_step, guide_ema = parse_guide(guide)
            words = [
                folder,
                str(open_run(folder).step(guide_step)),
                *([guide_ema] * bool(guide_ema)),
            ]
            return f'{self.sampler_spec(bare, step, ema)}+auto{weight:.10g}={",".join(words)}'
        name, _, count = spec.partition('@')
        if name != 'tuned':
            return spec
        tuned = {
            str(record['levels']): record['sampler']
            for record in self.tuned()
            if (record['step'], record['ema']) == (step, ema)
        }
        if not count and len(tuned) == 1:
            return next(iter(tuned.values()))
        if tuned:
            check_name('sampler', spec, [f'tuned@{n}' for n in tuned])
            return tuned[count]
        raise UserError(
            f'sampler {spec!r}: no levels were tuned for these weights; this tunes them: python -m '
            f"cm_jax.tune_levels --workdir={self.workdir} --step={step} --ema='{ema}'"
        )

    def metrics(self) -> list[dict[str, Any]]:
        """Returns the rows of metrics.jsonl."""
        return read_json_lines(self.workdir / METRICS, 'step')

    def scores(self) -> list[dict[str, Any]]:
        """Returns the rows of scores.jsonl."""
        return read_json_lines(self.workdir / SCORES, 'protocol')


def open_run(workdir: str | epath.Path, unsupported: bool = False) -> Run:
    """Returns the run in a folder.

    If `unsupported`, its network may be guided by class, however it was trained.

    Raises UserError if the folder is no run folder, if its config is not one of this program, or if
    training has not started in it.
    """
    workdir = epath.Path(expanded(workdir))
    config = run_folder.read_config(workdir)
    if not (workdir / DATA_CARD).exists():
        raise UserError(f'{workdir} has no {DATA_CARD}: its training did not start')
    card = run_folder.read_card(workdir)
    settings = parse_run(config)
    parts = wire(settings, tuple(card['image_shape']), card['num_classes'])
    if unsupported:
        model = parts.generative_model._replace(guidable=True)
        parts = dataclasses.replace(parts, generative_model=model)
    return Run(
        workdir=workdir, config=ConfigDict(config), settings=settings, card=card, parts=parts
    )


def _kind_of_samples(run: Run) -> dict[str, Any]:
    """Returns what must be equal in a run and in one that guides it."""
    model = run.parts.generative_model
    return {
        'process': run.settings.process,
        'classes': model.num_classes,
        'images': list(model.image_shape),
    }
