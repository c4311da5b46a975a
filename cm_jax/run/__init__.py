"""Opens a run folder and reads its config, steps, weights, samples and metrics, e.g. in a notebook.

run = open_run('runs/quickstart/ect')        # reads no weights; shows what the run is
run.steps()                                  # the trajectory
weights = run.params(step=None, ema='0.99')  # numpy, no device mesh needed; or 'posthoc0.07'
images = run.sample(weights, 'multistep@80,0.8', count=64, seed=0)
run.tree()                                   # each array: shape, norm, dtype, how it was saved
run.plot.samples()                           # a row for each snapshot, from the same noise
"""

import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from cm_jax import checkpoint, run_folder
from cm_jax.bounds import Count
from cm_jax.core import tree
from cm_jax.errors import UserError, check_name, check_value, listed
from cm_jax.files import expanded, read_json_lines, unsealed
from cm_jax.generate import check_sampler
from cm_jax.run import averages, guides, sampling, summary, weights
from cm_jax.run.averages import POSTHOC, Term
from cm_jax.run.compare import compare
from cm_jax.run.plots import Plots
from cm_jax.run.sampling import BATCH, Labels
from cm_jax.run.tables import Table
from cm_jax.run.weights import WeightTree
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
    weights_label,
)
from cm_jax.samplers import GenerativeModel
from cm_jax.settings import RunSettings, parse_run
from cm_jax.types import Params
from cm_jax.wiring import Parts, wire


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder that `open_run` opened. Its methods read files and never write."""

    workdir: epath.Path
    config: ConfigDict  # with all defaults and overrides resolved
    settings: RunSettings  # the same config, parsed
    card: Mapping[str, Any]  # describes the data that the weights were trained on
    parts: Parts

    def __repr__(self) -> str:
        return summary.as_text(str(self.workdir), summary.facts(self))

    def _repr_html_(self) -> str:
        return summary.as_html(str(self.workdir), summary.facts(self))

    @property
    def plot(self) -> Plots:
        """The pictures of the run: `run.plot.metrics()`, `.norms()`, `.samples()`, ..."""
        return Plots(self)

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

    def steps_with(self, ema: str) -> list[int]:
        """Returns the steps that hold the average `ema`, or at which it can be made.

        Raises UserError, as `check_ema` does for the last step, if there is none.
        """

        def is_made(step: int) -> bool:
            with contextlib.suppress(UserError):
                return bool(self.posthoc(step, ema))
            return False

        is_there = is_made if ema.startswith(POSTHOC) else lambda step: ema in self.stored(step)
        steps = [step for step in self.steps() if is_there(step)]
        if not steps:
            self.check_ema(self.step(), ema)
        return steps

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
        of their sum is off by more than averages.MAX_ERROR.
        """
        stored = ((at, name) for at in self.steps() if at <= step for name in self.emas(at))
        return averages.posthoc(stored, step, ema, self.workdir)

    def tree(self, step: int | None = None, ema: str = RAW) -> WeightTree:
        """Returns shape, size, norm and dtype of each array of weights, and how it was saved.

        The arguments are those of `params`, which reads the weights. How an array lay on devices when
        it was saved is read from what Orbax stores of it; an average that is made here has none.
        """
        step = self.step(step)
        params, saved_as = self.params(step, ema), {}
        if not ema.startswith(POSTHOC):
            saved_as = checkpoint.shardings(self.workdir / TRAJECTORY, step, item_name(ema))
        return weights.describe(params, saved_as, f'{weights_label(ema)} of step {step:,}')

    def norms(self, ema: str = RAW) -> Table:
        """Returns the norms of weights and updates over the trajectory, by block.

        Each row has a step, a block (a part of the network, or 'all'), the norm of its weights, the
        root of the sum of their squares, and that of the update: the weights less those of the
        snapshot before, None for the first. Reads every snapshot that has the average `ema`, one after
        another.
        """
        return weights.norms(lambda step: self.params(step, ema), self.steps_with(ema))

    @functools.cached_property
    def parameter_count(self) -> int:
        """The number of parameters of the network; no weights are read for it."""
        return tree.count(jax.eval_shape(self.parts.model.init, jax.random.key(0)))

    def project(self, params: Params) -> Params:
        """Returns weights as numpy arrays, with the network's constraint enforced (models.Model)."""
        return jax.tree.map(np.asarray, self.parts.model.project(params))

    def generator(self, spec: str, count: int) -> Callable[..., np.ndarray]:
        """Returns `generate(params, seed, labels=None, noise=None)`, which does what `sample` does.

        `spec` describes the sampler. The program is compiled once for all weights, seeds, labels and
        noise, and kept with the run; it makes at most sampling.BATCH samples at a time.
        """
        count = check_value('count', Count, count)
        spec = guides.with_step(spec, open_run)  # a guide may be trained on meanwhile
        key = spec, min(count, BATCH)
        if key not in self._programs:
            model, rule = self.guided_model([spec]), self.settings.evaluation.bytes
            self._programs[key] = sampling.compile_sampler(model, *key, rule)
        program = self._programs[key]

        def samples(
            params: Params,
            seed: int,
            labels: Labels | None = None,
            noise: np.ndarray | None = None,
        ) -> np.ndarray:
            given = sampling.starts(self.parts.generative_model, count, labels, noise)
            return sampling.generate(program, params, seed, count, given)

        return samples

    def sample(
        self,
        params: Params,
        spec: str,
        count: int,
        seed: int = 0,
        *,
        labels: Labels | None = None,
        noise: np.ndarray | None = None,
    ) -> np.ndarray:
        """Returns `count` samples of a sampler: uint8 [count,H,W,C], by config.evaluation.bytes.

        A second call with the same sampler and count compiles nothing, whatever the weights are. Raises
        UserError on a sampler, labels or noise that do not fit the network.

        Args:
          params: the weights, such as `params()`.
          spec: describes the sampler, such as 'onestep' (cm_jax.samplers has them all).
          count: the number of samples, >= 1.
          seed: the stream of noise; sample i of it is the same whatever the count is.
          labels: the class of all samples, or an array [count] of classes. None goes through the
            classes in turn.
          noise: eps [count,H,W,C], standard normal, in place of the noise that the seed gives to start
            from. Noise that a sampler adds on its way is still the seed's.
        """
        return self.generator(spec, count)(params, seed, labels, noise)

    def sample_each(
        self,
        steps: Sequence[int] | None = None,
        spec: str | None = None,
        count: int = 8,
        seed: int = 0,
        *,
        ema: str = RAW,
        labels: Labels | None = None,
        noise: np.ndarray | None = None,
    ) -> np.ndarray:
        """Returns samples of several snapshots from the same noise: uint8 [steps,count,H,W,C].

        Without steps they are all that have the average `ema`, and without `spec` the sampler is
        config.sampling.sampler. The other arguments are those of `sample`. Raises UserError, before
        anything is computed, if a step has no such average.
        """
        steps = self.steps_with(ema) if steps is None else [self.step(step) for step in steps]
        spec = self.settings.sampling.sampler if spec is None else spec
        for step in steps:
            self.check_ema(step, ema)
        specs = [self.sampler_spec(spec, step, ema) for step in steps]
        images = [
            self.sample(self.params(step, ema), full, count, seed, labels=labels, noise=noise)
            for step, full in zip(steps, specs)
        ]
        return np.stack(images)

    def denoise(
        self,
        params: Params,
        x: np.ndarray,
        t: float | np.ndarray,
        labels: Labels | None = None,
    ) -> np.ndarray:
        """Returns the estimate of x0 in noisy images, float32 [B,H,W,C]: denoise(x, t).

        For a consistency model that is its sample from x at level t.

        Args:
          params: the weights, such as `params()`.
          x: noisy images x_t = a(t) x0 + t eps [B,H,W,C], x0 in [-1, 1] (core.process.perturb).
          t: the noise level of all of them, or [B], in [t_min, t_max] of the process.
          labels: the class of all images, or [B]. None is no class, which a network with classes takes
            only if it was trained with config.model.label_dropout.
        """
        model = self.parts.generative_model
        program = self._programs.setdefault('denoise', jax.jit(model.denoise))
        return sampling.denoise(program, model, params, x, t, labels)

    @functools.cached_property
    def _programs(self) -> dict[Any, Callable[..., Any]]:
        """The compiled programs: of each sampler by its text and batch, and of 'denoise'."""
        return {}

    def guided_model(self, specs: Iterable[str]) -> GenerativeModel:
        """Returns the generative model of the run with the runs opened that guide these samplers.

        Raises UserError if one of them is no run with these weights, or is of other images, classes or
        another process.
        """
        model = self.parts.generative_model
        built = [check_sampler(spec, model) for spec in specs]
        opened = dict.fromkeys(sampler.guide for sampler in built if sampler.guide)
        return model._replace(
            guides={guide: guides.open_guide(self, guide, open_run) for guide in opened}
        )

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
        return guides.sampler_spec(self, spec, step, ema, open_run)

    def metrics(self) -> Table:
        """Returns the rows of metrics.jsonl, a list that shows itself as a table."""
        return Table(read_json_lines(self.workdir / METRICS, 'step'))

    def scores(self) -> Table:
        """Returns the rows of scores.jsonl, a list that shows itself as a table."""
        rows = read_json_lines(self.workdir / SCORES, 'protocol')
        return Table(rows, summary.score_columns(rows))

    def compare(self, other: 'Run | str | epath.Path') -> Table:
        """Returns a row for each thing in which another run, or that in a folder, differs from this.

        What is compared: the config, the data, the number of parameters, the steps of the snapshots,
        the averages at the last one, and every score of each protocol that either run has.
        """
        return compare(self, other if isinstance(other, Run) else open_run(other))


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
