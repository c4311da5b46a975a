"""Evaluate: `python -m cm_jax.evaluate --workdir=runs/quickstart/ect --sampler=onestep --ema=0.99`.

Scores a run's weights and adds a row for each to its `scores.jsonl`, with the protocol beside the
number. A score that is there already under the same protocol is not computed again. What is not
given is taken from the run's config (or, with --config, from that config's `evaluation`). Several
steps (--step=all) give the curve over training, `curve.json` and `curve.png`. With --straightness=N
the straightness of a rectified flow's paths, over N Euler steps, is measured instead, and goes to
`straightness.jsonl`.

The FID needs the file of the Inception's weights, pt_inception-2015-12-05-6726825d.pth:

    python -m cm_jax.evaluate --workdir=runs/cifar10/ect --extractor=inception --weights=FILE \\
        --samples=50000 --metrics=fid,kid,is,pr

The statistics of a reference set, to compare with many runs (--reference=FILE.npz), from --data or
from a config's data set; they are taken over every image:

    python -m cm_jax.evaluate reference --data=tfds:cifar10 --split=train \\
        --extractor=inception --weights=FILE --to=cifar10_train.npz
"""

import functools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from cm_jax import (
    commands,
    evaluate_curve,
    evaluate_images,
    evaluate_reference,
    evaluate_straightness,
    sharding,
)
from cm_jax.config import base_config
from cm_jax.errors import UserError
from cm_jax.generate import LABELS, build_sampler, labels_policy
from cm_jax.logs import append_json_line
from cm_jax.metrics import named
from cm_jax.models import lenet
from cm_jax.references import describe
from cm_jax.run import RAW, Run, open_run
from cm_jax.scores import Evaluation, Scorer
from cm_jax.types import Extractor
from cm_jax.weights import download, inception
from cm_jax.wiring import FROM_FILES, evaluation, open_reference

_CONFIG = config_flags.DEFINE_config_file('config', None, 'takes `evaluation` from this config')
_WORKDIR = flags.DEFINE_string('workdir', None, 'the run folder')
_STEP = flags.DEFINE_multi_string(
    'step', None, "trajectory step, repeatable, or 'all'; default the last"
)
_EMA = flags.DEFINE_multi_string(
    'ema',
    None,
    "average, e.g. 0.999 or posthoc0.07, repeatable; '' is the weights themselves; default: all "
    'that are stored',
)
_SAMPLER = flags.DEFINE_multi_string('sampler', None, 'e.g. heun@18 or tuned, repeatable')
_SAMPLES = flags.DEFINE_integer('samples', None, 'samples a seed')
_SEEDS = flags.DEFINE_list('seeds', None, 'streams of noise, e.g. 1000,1001,1002')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', None, 'images at a time; changes no score')
_LABELS = flags.DEFINE_enum(
    'labels', None, LABELS, 'classes of the samples: balanced (the default), or drawn uniformly'
)
_EXTRACTOR = flags.DEFINE_string('extractor', None, 'e.g. inception, dinov2_vitl14, lenet_digits')
_WEIGHTS = flags.DEFINE_string('weights', None, 'the file of the weights of the extractor')
_DOWNLOAD = flags.DEFINE_bool(
    'download', False, "fetch the extractor's weights, if they are not there; checks their sha256"
)
_REFERENCE = flags.DEFINE_string(
    'reference', None, 'split of the data set, or an .npz file of reference statistics'
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
_STRAIGHTNESS = flags.DEFINE_integer(
    'straightness', None, 'measure the straightness of paths of so many Euler steps, e.g. 128'
)

SCORING = (
    'workdir',
    'step',
    'ema',
    'sampler',
    'samples',
    'seeds',
    'labels',
    'reference',
    'metrics',
)
SCORING += ('save_images', 'straightness')
NOT_STRAIGHTNESS = (
    'extractor',
    'weights',
    'download',
    'reference',
    'metrics',
    'labels',
    'save_images',
)
REFERENCE = 'reference'


def refuse_flags(names: Sequence[str], command: str) -> None:
    """Raises UserError if one of the flags was given, which the command would not read."""
    given = [name for name in names if flags.FLAGS[name].present]
    if given:
        raise UserError(f'{command} takes no --{given[0]}')


def asked(config: Any, **defaults: Any) -> Evaluation:
    """The evaluation of a config with what the flags say instead; fetches weights if they ask for it.

    `defaults` stand behind the flags and before the config.
    """
    given = {
        'extractor': _EXTRACTOR.value,
        'weights': _WEIGHTS.value,
        'reference': _REFERENCE.value,
        'samples': _SAMPLES.value,
        'seeds': commands.integers('seeds', _SEEDS.value) or None,
        'batch_size': _BATCH_SIZE.value,
    }
    given = defaults | {name: value for name, value in given.items() if value is not None}
    extractor = given.get('extractor', config.evaluation.extractor)
    stored = config.evaluation.get('weights', '')
    if extractor != config.evaluation.extractor:
        given.setdefault('weights', '')  # those in the config are of its own extractor
    if _DOWNLOAD.value:
        given['weights'] = str(download.place(extractor, given.get('weights', stored)))
    if extractor in FROM_FILES and not given.get('weights', stored):
        raise UserError(
            f'the extractor {extractor!r} needs the file of its weights: --weights=FILE, or '
            '--download, which fetches it'
        )
    ev = evaluation(config, **given)
    if _DOWNLOAD.value:
        download.fetch(ev.extractor, ev.weights)
    return ev


def chosen_weights(run: Run) -> list[tuple[int, str]]:
    """(step, average) of the weights that the flags name."""
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
        for ema in (_EMA.value if _EMA.value is not None else [RAW, *run.emas(step)])
    ]


def shown(step: int, ema: str) -> str:
    """The weights, for the terminal."""
    return f'step {step}  {f"ema {ema}" if ema else "weights":<10}'


def spread(std: float | None, form: str = '.4f') -> str:
    return '' if std is None else f' +- {std:{form}}'


def numbers(row: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    """'12.3456 +- 0.1234', 'kid 0.001235 +- 0.0001': the first is named by the protocol."""
    for name in names:
        label, form = ('', '.4f') if name == names[0] else (f'{name} ', '.4g')
        value = math.nan if row[name] is None else row[name]
        yield f'{label}{value:{form}}{spread(row[f"{name}_std"], form)}'


def header(protocol: Mapping[str, Any], extractor: Extractor, channels: int) -> str:
    """What all scores of a call have in common, and what they are not good for."""
    text = (
        f'protocol {protocol["id"]}: {protocol["score"]}, {extractor.name} '
        f'{extractor.checksum[:8]} ({extractor.resize}), {protocol["samples"]:,} samples a seed, '
        f'labels {protocol["labels"]}; reference {describe(protocol["reference"])}'
    )
    if protocol['rank_deficient']:
        text += (
            f'\nwarning: too few samples or reference images for {extractor.dim} features: the '
            'covariance is singular, and the distance far too high to compare with any other protocol'
        )
    if extractor.name in lenet.names() and channels != 1:
        text += (
            f'\nwarning: {extractor.name} was trained on small grey pictures; for those of {channels} '
            'channels --extractor=inception gives the FID'
        )
    return text


def straightness(run: Run, chosen: Sequence[tuple[int, str]], ev: Evaluation) -> None:
    """--straightness."""
    if _SAMPLER.value:
        raise UserError('--straightness follows Euler steps of its own: leave --sampler out')
    steps = _STRAIGHTNESS.value
    settings = steps, ev.samples, ev.seeds, ev.batch_size
    for row in evaluate_straightness.measure(run, chosen, *settings):
        protocol, (found,) = row['protocol'], numbers(row, ['straightness'])
        print(
            f'{shown(protocol["step"], protocol["ema"])}  straightness over {steps} Euler steps '
            f'{found}',
            flush=True,
        )


def described(row: Mapping[str, Any], names: Sequence[str], dim: int, cost: str) -> str:
    """A row for the terminal."""
    protocol = row['protocol']
    condition = math.nan if row['condition'] is None else row['condition']
    return (
        f'{shown(protocol["step"], protocol["ema"])}  {protocol["sampler"]:<18} '
        f'{protocol["evaluations"]:>3} evaluations  {protocol["score"]} '
        f'{"  ".join(numbers(row, names))}  (condition {condition:.1e}, rank {row["rank"]} of {dim}; '
        f'{cost})'
    )


def scores(run: Run, chosen: Sequence[tuple[int, str]], ev: Evaluation) -> None:
    """Everything is opened and checked before the first sample."""
    labels, metrics, images = _LABELS.value or LABELS[0], _METRICS.value, _SAVE_IMAGES.value
    specs = _SAMPLER.value or list(ev.samplers)
    jobs = [(step, ema, run.sampler_spec(s, step, ema)) for step, ema in chosen for s in specs]
    for _, _, spec in jobs:
        build_sampler(spec, run.parts.subject)
    labels_policy(run.parts.subject, labels)
    folders = [evaluate_images.folder(images, *job) for job in jobs] if images else []
    for step, ema in chosen:
        run.check_ema(step, ema)
    weights = functools.lru_cache(maxsize=1)(run.params)  # one model in memory at a time
    extractor, reference = open_reference(run.config, ev, metrics)
    mesh = sharding.make_mesh()
    scorer = Scorer(run.parts.subject, extractor, reference, ev.batch_size, mesh, metrics, labels)
    names = [extractor.score, *named.keys(extractor, metrics)]
    found = (row for row in run.scores() if row.keys() >= {*names, 'condition'})
    stored, rows = {str(row['protocol']): row for row in found}, []
    for i, (step, ema, spec) in enumerate(jobs):
        what = {'spec': spec, 'samples': ev.samples, 'seeds': ev.seeds, 'ema': ema, 'step': step}
        protocol, since = scorer.protocol(**what), time.monotonic()
        if not rows:
            print(header(protocol, extractor, run.parts.subject.image_shape[-1]), flush=True)
        row, cost = stored.get(str(protocol)), 'stored'
        if row is None or folders:
            save = evaluate_images.writer(folders[i]) if folders else None
            row = scorer.score(weights(step, ema), **what, save=save)
        if str(protocol) not in stored:
            stored[str(protocol)] = row = append_json_line(run.workdir / 'scores.jsonl', row)
            cost = f'{time.monotonic() - since:.1f} s'
        rows.append(row)
        print(described(row, names, extractor.dim, cost), flush=True)
    if len({step for step, _, _ in jobs}) > 1:
        print(f'curve: {evaluate_curve.write(run.workdir, rows, extractor.score)}')


def main(argv: Sequence[str]) -> None:
    if len(argv) > 2 or argv[1:] not in ([], [REFERENCE]):
        raise UserError(f'unknown argument {argv[-1]!r}; legal: none, or {REFERENCE}')
    config = None if _CONFIG.value is None else commands.required_config(_CONFIG)
    if argv[1:]:
        refuse_flags(SCORING, 'evaluate reference')
        fallback = {} if config else {'extractor': inception.NAME}
        ev = asked(config or base_config(), **fallback)
        evaluate_reference.write(ev, config)
        return
    refuse_flags(evaluate_reference.FLAGS, 'evaluate without the word reference')
    run = open_run(commands.required_workdir(_WORKDIR))
    chosen = chosen_weights(run)
    if _STRAIGHTNESS.value is not None:
        refuse_flags(NOT_STRAIGHTNESS, '--straightness')
    ev = asked(config or run.config)
    (scores if _STRAIGHTNESS.value is None else straightness)(run, chosen, ev)


if __name__ == '__main__':
    commands.run(main, arguments=True)
