"""Scores a run's weights.

    python -m cm_jax.evaluate --workdir=runs/digits/ect --sampler=onestep --ema=0.99

Adds a row for each of the weights to the run's `scores.jsonl`, with the protocol beside the number. A
score that is stored already under the same protocol is not computed again. What is not given is taken
from the run's config (or, with --config, from that config's `evaluation`). Several steps (--step=all)
give the curve over training, `curve.json` and `curve.png`. With --straightness=N the straightness of a
rectified flow's paths, over N Euler steps, is measured instead, and goes to `straightness.jsonl`.

The FID needs the file of the Inception's weights, pt_inception-2015-12-05-6726825d.pth:

    python -m cm_jax.evaluate --workdir=runs/cifar10/ect --extractor=inception --weights=FILE \\
        --samples=50000 --metrics=fid,kid,is,pr

--reference=FILE.npz compares with statistics that `python -m cm_jax.reference` has written.
"""

import contextlib
import dataclasses
import functools
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags

from cm_jax import cli, sharding
from cm_jax.bounds import Samples
from cm_jax.errors import UserError
from cm_jax.evaluation import curve, images, straightness
from cm_jax.evaluation.extractors import override
from cm_jax.evaluation.lines import header, score_line, values, weights_line
from cm_jax.evaluation.scores import FeatureSpace, Scorer
from cm_jax.files import append_json_line
from cm_jax.generate import LABELS, labels_policy
from cm_jax.metrics import named
from cm_jax.metrics.features import ROUNDING
from cm_jax.run import Run, open_run
from cm_jax.run_folder import SCORES
from cm_jax.samplers import GenerativeModel
from cm_jax.settings import Evaluation, parse_run
from cm_jax.terminal import Progress, say_next
from cm_jax.wiring import open_spaces

_CONFIG = cli.config_flag("a config whose section `evaluation` is used in place of the run's own")
_WORKDIR = cli.workdir_flag()
_STEP = flags.DEFINE_multi_string(
    'step',
    None,
    "the training step whose weights are scored, or 'all'; repeatable; default: the last",
)
_EMA = flags.DEFINE_multi_string(
    'ema',
    None,
    "which average of the weights is scored, e.g. 0.999 or posthoc0.07; '' is the weights "
    'themselves; repeatable; default: all that are stored',
)
_SAMPLER = flags.DEFINE_multi_string(
    'sampler',
    None,
    'how images are generated, e.g. onestep, multistep@80,0.8, heun@18, tuned; repeatable; default: '
    'config.evaluation.samplers',
)
_SAMPLES = cli.number_flag('samples', None, 'how many images are generated for a seed', Samples)
_SEEDS = flags.DEFINE_list(
    'seeds', None, 'seeds of the noise, e.g. 1000,1001,1002; the score is the mean over them'
)
_EXTRACTOR = cli.extractor_flags()
_SECOND = flags.DEFINE_list(
    'second',
    None,
    'other extractors that measure the same images, each perhaps with =FILE: '
    'lenet_fashion_mnist,pixel,vgg16=FILE',
)
_LABELS = flags.DEFINE_enum(
    'labels', LABELS[0], LABELS, 'classes of the samples: balanced, or drawn uniformly'
)
_REFERENCE = flags.DEFINE_string(
    'reference', None, "split of the data set, or an .npz (EDM2's .pkl) of reference statistics"
)
_BYTES = flags.DEFINE_enum(
    'bytes', None, list(ROUNDING), 'how images become bytes, as config.evaluation.bytes'
)
_METRICS = flags.DEFINE_list(
    'metrics',
    [],
    'beside the Fréchet distance, which every score has: for the Inception kid, is (inception '
    'score), pr (precision, recall, density, coverage); for others kd_lenet, is_lenet, pr_lenet',
)
_SAVE_IMAGES = flags.DEFINE_string(
    'save_images', None, 'a folder for the samples, a PNG each; else none is written'
)
_STRAIGHTNESS = cli.number_flag(
    'straightness', None, 'measure the straightness of paths of so many Euler steps, e.g. 128'
)
_UNSUPPORTED = cli.unsupported_flag()

REFERENCE = 'reference'
NOT_STRAIGHTNESS = (
    'extractor',
    'weights',
    'download',
    'reference',
    'metrics',
    'second',
    'labels',
    'bytes',
    'save_images',
)


def asked_samples(evaluation: Evaluation) -> Evaluation:
    """Returns an evaluation with the samples that the flags ask for instead of its own."""
    given: dict[str, Any] = {
        'batch_size': _EXTRACTOR.batch_size.value,
        'samples': _SAMPLES.value,
        'seeds': cli.naturals('seeds', _SEEDS.value) or None,
    }
    given = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(evaluation, **given)


def asked_evaluation(evaluation: Evaluation) -> Evaluation:
    """Returns an evaluation with what the flags say instead of its own settings.

    Fetches the weights of the extractor if --download asks for it.
    """
    given = {
        'extractor': _EXTRACTOR.extractor.value,
        'weights': _EXTRACTOR.weights.value,
        'reference': _REFERENCE.value,
        'bytes': _BYTES.value,
        'second': None if _SECOND.value is None else tuple(_SECOND.value),
    }
    return override(asked_samples(evaluation), given, fetch=_EXTRACTOR.download.value)


def chosen_weights(run: Run) -> list[tuple[int, str]]:
    """Returns (step, average) of the weights that the flags name."""
    steps = []
    for text in _STEP.value or ['']:
        if text == 'all':
            steps += run.steps()
        elif text and not text.isdecimal():
            raise UserError(f"--step takes a whole number, or 'all'; got {text!r}")
        else:
            steps.append(run.step(int(text) if text else None))
    return [
        (step, ema)
        for step in dict.fromkeys(steps)
        for ema in (_EMA.value if _EMA.value is not None else run.stored(step))
    ]


def measure_straightness(
    run: Run, weights: Sequence[tuple[int, str]], evaluation: Evaluation, euler_steps: int
) -> None:
    """Measures the straightness of paths (--straightness) and prints it."""
    if _SAMPLER.value:
        raise UserError('--straightness follows Euler steps of its own: leave --sampler out')
    rows = straightness.measure(
        run.parts.generative_model, run.params, weights, run.workdir, euler_steps, evaluation
    )
    for row in rows:
        protocol, (value,) = row['protocol'], values(row, ['straightness'])
        print(
            f'{weights_line(protocol["step"], protocol["ema"])}  straightness over {euler_steps} '
            f'Euler steps {value}',
            flush=True,
        )


class Request(NamedTuple):
    """A score that was asked for: of which weights, by which sampler."""

    step: int
    ema: str
    spec: str


def requests(
    run: Run, weights: Sequence[tuple[int, str]], evaluation: Evaluation
) -> tuple[list[Request], GenerativeModel]:
    """Returns the scores that the flags ask for, and the model that makes their samples.

    Raises UserError if one of them is not possible.
    """
    specs = _SAMPLER.value or evaluation.samplers
    requested = [
        Request(step, ema, run.sampler_spec(spec, step, ema))
        for step, ema in weights
        for spec in specs
    ]
    asked = list(dict.fromkeys(requested))  # 'tuned' may be one of the others
    model = run.guided_model([request.spec for request in asked])
    labels_policy(model, _LABELS.value)
    for step, ema in weights:
        run.check_ema(step, ema)
    return asked, model


def protocols_of(row: Mapping[str, Any], spaces: Sequence[FeatureSpace]) -> list[Any]:
    """Returns the protocols of a stored score in each feature space; None where it has none there."""
    others = row.get('others', {})
    scores = [space.extractor.score for space in spaces[1:]]
    return [row['protocol'], *(others.get(score, {}).get('protocol') for score in scores)]


def score_weights(run: Run, weights: Sequence[tuple[int, str]], evaluation: Evaluation) -> None:
    """Scores each of the weights with each sampler; everything is checked before the first sample."""
    asked, model = requests(run, weights, evaluation)
    metrics, root, mesh = _METRICS.value, _SAVE_IMAGES.value, sharding.make_mesh()
    folders = [images.folder(root, *request) if root else None for request in asked]
    spaces = open_spaces(run.settings.dataset, evaluation, metrics)
    batch_size, rule = evaluation.batch_size, evaluation.bytes
    scorer = Scorer(model, spaces, batch_size, mesh, _LABELS.value, rule)
    extractor = spaces[0].extractor
    load = functools.lru_cache(maxsize=1)(run.params)  # one model in memory at a time
    names = [
        name
        for space in spaces
        for name in (space.extractor.score, *named.keys(space.extractor, space.metrics))
    ]
    stored = {
        str(protocols_of(row, spaces)): row
        for row in run.scores()
        if row.keys() >= {*names, 'condition'}  # rows of earlier versions may lack some
    }
    samples, seeds = evaluation.samples, evaluation.seeds
    protocols = [
        [
            scorer.protocol(spec, samples, seeds, ema=ema, step=step, space=i)
            for i in range(len(spaces))
        ]
        for step, ema, spec in asked
    ]
    wanted = [
        None if folder is None or images.are_saved(folder, of_spaces) else folder
        for folder, of_spaces in zip(folders, protocols)
    ]
    missing = [str(p) not in stored or bool(w) for p, w in zip(protocols, wanted)]
    print(header(protocols[0][0], extractor, model.image_shape[-1]), flush=True)
    rows: list[dict[str, Any]] = []
    with Progress(sum(missing) * len(seeds) * samples, 'scoring', leave=False) as bar:
        for (step, ema, spec), of_spaces, to, is_missing in zip(asked, protocols, wanted, missing):
            since, row, cost = time.monotonic(), stored.get(str(of_spaces), {}), 'stored'
            score = functools.partial(scorer.score, ema=ema, step=step, bar=bar)
            if is_missing:
                saving = images.saving(to, of_spaces) if to else contextlib.nullcontext()
                with saving as save:
                    made = score(load(step, ema), spec, samples, seeds, save=save)
                if not row:
                    row = append_json_line(run.workdir / SCORES, made)
                    cost = f'{time.monotonic() - since:.1f} s'
            rows.append(row)
            bar.print(score_line(row, names, cost))
    if len({request.step for request in asked}) > 1:
        print(f'curve: {curve.write(run.workdir, rows, extractor.score)}')
    end(run, rows, extractor.score)


def end(run: Run, rows: Sequence[Mapping[str, Any]], score: str) -> None:
    """Says where the scores are, and which commands go on from the best of them."""
    print(
        f'stored in {run.workdir / SCORES}, each with its protocol, and the condition and rank of the '
        'covariance behind it'
    )
    protocol = min(rows, key=lambda row: math.inf if row[score] is None else row[score])['protocol']
    best = f'--ema={protocol["ema"]} --sampler={protocol["sampler"]}'
    commands = [f'sample --workdir={run.workdir} --step={protocol["step"]} {best}']
    if len({row['protocol']['step'] for row in rows}) < len(run.steps()):
        kept = ('samples', 'seeds', 'extractor', 'weights', 'reference', 'batch_size')
        given = [flags.FLAGS[name] for name in kept if flags.FLAGS[name].present]
        same = ''.join(
            f' --{f.name}={",".join(f.value) if isinstance(f.value, list) else f.value}'
            for f in given
        )
        commands.append(f'evaluate --workdir={run.workdir} --step=all {best}{same}')
    say_next(commands)


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise UserError(f'unknown argument {argv[1]!r}; legal: none, or {REFERENCE}')
    run = open_run(cli.required_workdir(_WORKDIR), _UNSUPPORTED.value)
    if lost := run.lost_snapshots():
        print(f'warning: {lost}', flush=True)
    evaluation = run.settings.evaluation
    if _CONFIG.value is not None:
        evaluation = parse_run(cli.required_section(_CONFIG, 'evaluation')).evaluation
    weights = chosen_weights(run)
    euler_steps = _STRAIGHTNESS.value
    if euler_steps is not None:
        cli.refuse_flags(NOT_STRAIGHTNESS, '--straightness')
        measure_straightness(run, weights, asked_samples(evaluation), euler_steps)
    else:
        score_weights(run, weights, asked_evaluation(evaluation))


if __name__ == '__main__':
    if REFERENCE in sys.argv[1:]:  # another spelling of the command `reference`
        arguments = [argument for argument in sys.argv[1:] if argument != REFERENCE]
        os.execv(sys.executable, [sys.executable, '-m', 'cm_jax.reference', *arguments])
    else:
        cli.run(main, arguments=True)
