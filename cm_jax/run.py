"""Open a run folder: its config, steps, weights, samples, metrics. What notebooks use.

run = open_run('runs/quickstart/ect')
run.steps()                                  # the trajectory
weights = run.params(step=None, ema='0.99')  # numpy, no device mesh needed; or 'posthoc0.07'
images = run.sample(weights, 'multistep@80,0.8', count=64, seed=0)
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from cm_jax import checkpoint, sharding
from cm_jax import config as configs
from cm_jax.core import ema as averages
from cm_jax.core import tree
from cm_jax.data import Source, card
from cm_jax.errors import UserError, check_name
from cm_jax.generate import build_sampler, make_generator
from cm_jax.logs import read_json_lines, write_text
from cm_jax.metrics.features import to_bytes
from cm_jax.types import Params
from cm_jax.wiring import Parts, wire

RAW = ''  # the weights themselves, no average
POSTHOC = 'posthoc'  # 'posthoc0.07': the power-function average made of those that are stored
MAX_ERROR = 0.05  # of its profile, relative; beyond it an average is refused
CARD = 'data_card.json'
TUNED = 'tuned_levels.json'  # a list: one record a search of tune_levels
STRAIGHTNESS = 'straightness.jsonl'
TRAJECTORY = 'trajectory'
RESUME = 'resume'


def item_name(ema: str) -> str:
    """The name in a trajectory step of an average, or of the weights themselves ('')."""
    return f'ema_{ema}' if ema else 'params'


class Part(NamedTuple):
    """A term of a post-hoc average: the coefficient of the stored average `ema` of `step`."""

    step: int
    ema: str
    coefficient: float


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder; made by `open_run`. Reads only."""

    workdir: epath.Path
    config: ConfigDict
    card: Mapping[str, Any]  # of the data that the weights were trained on
    parts: Parts

    def steps(self) -> list[int]:
        """The steps of the trajectory, ascending."""
        return checkpoint.list_steps(self.workdir / TRAJECTORY)

    def step(self, step: int | None = None) -> int:
        """`step`, or the last one if None. Raises UserError if it is not there."""
        steps = self.steps()
        if not steps:
            raise UserError(f'{self.workdir} has no trajectory step yet: it was not trained')
        if step is None:
            return steps[-1]
        if step not in steps:
            raise UserError(f'{self.workdir} has no step {step}; {_listed(steps)}')
        return step

    def emas(self, step: int | None = None) -> list[str]:
        """The averages stored at a step."""
        folder = self.workdir / TRAJECTORY / str(self.step(step))
        return sorted(p.name[len('ema_') :] for p in folder.iterdir() if p.name.startswith('ema_'))

    def check_ema(self, step: int, ema: str) -> None:
        """Raises UserError if an average is neither stored at a step nor can be made there."""
        if ema.startswith(POSTHOC):
            self.posthoc(step, ema)
        elif ema != RAW:
            check_name(f'average of step {step} in {self.workdir}', ema, self.emas(step))

    def params(self, step: int | None = None, ema: str = RAW) -> Params:
        """Weights of a step (None: the last) as nested dicts of numpy arrays.

        `ema` is one of `emas(step)`, or 'posthoc' and a sigma_rel: see `posthoc`.
        """
        step = self.step(step)
        if ema.startswith(POSTHOC):
            parts = self.posthoc(step, ema)
            stored = (self.params(part.step, part.ema) for part in parts)
            return tree.weighted_sum([part.coefficient for part in parts], stored)
        self.check_ema(step, ema)
        return checkpoint.load(self.workdir / TRAJECTORY, step, item_name(ema))

    def posthoc(self, step: int, ema: str) -> list[Part]:
        """What `ema`, e.g. 'posthoc0.07', of `step` is the sum of: all power-function averages that
        the trajectory holds up to there, with their coefficients (`core.ema.posthoc`).

        Raises UserError if there are none, or if they do not give that average within MAX_ERROR.
        """
        try:
            sigma_rel = float(ema.removeprefix(POSTHOC))
        except ValueError:
            raise UserError(f'{POSTHOC} takes a number, as in {POSTHOC}0.07; got {ema!r}') from None
        averages.sigma_rel_to_gamma(sigma_rel)  # refuses a number out of range
        found = [
            (s, name, float(name.removeprefix(averages.POWER)))
            for s in self.steps()
            if 0 < s <= step
            for name in self.emas(s)
            if name.startswith(averages.POWER)
        ]
        if not found:
            raise UserError(
                f'{ema} is made of stored power-function averages, and {self.workdir} has none up to '
                f'step {step}: it takes config.ema_sigma_rels, e.g. (0.05, 0.1), and '
                'config.trajectory.emas=True in training'
            )
        steps, names, stored = zip(*found)
        coefficients, error = averages.posthoc(steps, stored, step, sigma_rel)
        if error > MAX_ERROR:
            raise UserError(
                f'{ema} of step {step} is out of the range of the {len(found)} averages stored '
                f'({", ".join(sorted(set(names)))}; steps {steps[0]} to {steps[-1]}): its profile '
                f'would be {error:.0%} off, over {MAX_ERROR:.0%}. Choose a sigma_rel nearer to '
                'theirs; in training, config.trajectory.emas=True and a smaller '
                'config.trajectory.every widen the range'
            )
        return [Part(s, name, float(c)) for s, name, c in zip(steps, names, coefficients)]

    def generator(self, spec: str, count: int) -> Callable[[Params, int], np.ndarray]:
        """`generate(params, seed)`: `count` samples with the sampler written `spec`, uint8
        [count,H,W,C], by one program for all weights and seeds."""
        subject, mesh = self.parts.subject, sharding.make_mesh()
        generate = make_generator(subject, build_sampler(spec, subject), mesh, count, to_bytes)
        return lambda params, seed: generate(params, seed, 0)

    def sample(self, params: Params, spec: str, count: int, seed: int = 0) -> np.ndarray:
        """`count` samples with the sampler written `spec`: uint8 [count,H,W,C]."""
        return self.generator(spec, count)(params, seed)

    def tuned(self) -> list[dict[str, Any]]:
        """The records of tuned_levels.json, the newest last; [] where there are none."""
        path = self.workdir / TUNED
        return json.loads(path.read_text()) if path.exists() else []

    def sampler_spec(self, spec: str, step: int, ema: str) -> str:
        """The sampler that `spec` stands for: 'tuned', or 'tuned@n' with n levels, is what
        tune_levels found last for these weights, all else itself. Raises UserError if it found none.
        """
        name, _, count = spec.partition('@')
        if name != 'tuned':
            return spec
        found = {
            str(record['levels']): record['sampler']
            for record in self.tuned()
            if (record['step'], record['ema']) == (step, ema)
        }
        if not count and len(found) == 1:
            return next(iter(found.values()))
        if found:
            check_name('sampler', spec, [f'tuned@{n}' for n in found])
            return found[count]
        raise UserError(
            f'sampler {spec!r}: no levels were tuned for these weights; this tunes them: python -m '
            f"cm_jax.tune_levels --workdir={self.workdir} --step={step} --ema='{ema}'"
        )

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl."""
        return read_json_lines(self.workdir / 'metrics.jsonl')

    def scores(self) -> list[dict[str, Any]]:
        """The rows of scores.jsonl."""
        return read_json_lines(self.workdir / 'scores.jsonl')


def open_run(workdir: str | epath.Path) -> Run:
    """Opens a run folder. Raises UserError if it is none or its config is not one of ours."""
    workdir = epath.Path(workdir)
    config = ConfigDict(configs.read_config(workdir))
    path = workdir / CARD
    if not path.exists():
        raise UserError(f'{workdir} has no {CARD}: its training did not start')
    stored = json.loads(path.read_text())
    parts = wire(config, tuple(stored['image_shape']), stored['num_classes'])
    return Run(workdir, config, stored, parts)


def store_card(workdir: epath.Path, source: Source) -> dict[str, Any]:
    """The card of a source, checked against those stored with the data and in the run folder.

    Raises UserError naming what differs. Stores it in the run folder if there is none.
    """
    if source.card is not None:
        card.check(source.card, source)
    path = workdir / CARD
    if path.exists():
        stored = json.loads(path.read_text())
        card.check(stored, source)
        return stored
    found = card.make(source)
    write_text(path, json.dumps(found, indent=1) + '\n')
    return found


def _listed(steps: list[int]) -> str:
    if len(steps) <= 12:
        return f'there are {", ".join(map(str, steps))}'
    return f'there are {len(steps)}: {", ".join(map(str, steps[:4]))}, ..., {steps[-1]}'
