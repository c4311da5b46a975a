"""A run is a folder: the names of its files, whose run it is, and how it is claimed and set aside.

A folder belongs to the config that it was begun with. A command that is started again with the same
config continues there; another config is refused, and nothing is ever overwritten.
"""

import contextlib
import difflib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath

from cm_jax import interrupts, locks
from cm_jax.config import differences
from cm_jax.data import Source, card
from cm_jax.errors import UserError, listed
from cm_jax.files import free_name, is_unfinished, read_json, sealed, write_text
from cm_jax.settings import Trajectory, earlier_search

# Written by every command that makes a run folder.
CONFIG = 'config.json'  # the resolved config
DATA_CARD = 'data_card.json'  # what the data was, in numbers that change when it does
ORIGIN = 'origin.json'  # where weights come from that were not trained in this folder
TRAJECTORY = 'trajectory'  # light snapshots of the weights, one item a step
SAMPLES = 'samples'  # pictures
# Written by `train`.
RESUME = 'resume'  # full training states
METRICS = 'metrics.jsonl'
SKIPPED = 'skipped.jsonl'  # steps that were not finite
EVENTS = 'events'  # for TensorBoard
WANDB = 'wandb.json'  # which run of Weights & Biases has the metrics too
DISTANCE = 'distance.json'  # the network that is the distance of the loss, by its checksums
# Written by `evaluate` and `tune_levels`.
SCORES = 'scores.jsonl'
STRAIGHTNESS = 'straightness.jsonl'
CURVE, CURVE_PLOT = 'curve.json', 'curve.png'
TUNED_LEVELS = 'tuned_levels.json'  # a list: one record a search of levels
# Written by `search`.
SEARCH = 'search.json'  # the resolved config of the search
SNAPSHOTS = 'snapshots.json'  # what the search combines
COEFFICIENTS, COEFFICIENTS_PLOT = 'coefficients.json', 'coefficients.png'
CHOSEN = 'chosen.json'  # who was chosen on selection noise
REPORT = 'report.json'  # the last file that a search writes
REPORT_ROWS = 'report.jsonl'  # the rows of the report that are scored already
LANDSCAPE, LANDSCAPE_PLOT = 'landscape.json', 'landscape.png'
UNITS = 'units.json'  # of the metrics of the search, where they are relative
PROGRESS_PLOT = 'progress.png'
COMBINED_SAMPLES = 'samples/lcsc.png'
# Written by `report`.
PAGE = 'report.html'

# What to do if one of these files is damaged, and if another of a search is.
BEGIN_ELSEWHERE = (
    'restore it: the command that made this folder writes the same into a new --workdir'
)
SEARCH_AGAIN = f'delete it, and {REPORT} if there is one: the same search command makes both again'
REMEDIES = {
    **dict.fromkeys((CONFIG, DATA_CARD, ORIGIN, DISTANCE, SEARCH), BEGIN_ELSEWHERE),
    WANDB: 'delete it: the metrics then go on in a new run of Weights & Biases',
    TUNED_LEVELS: 'delete it, and tune the levels again',
}

EMA_ITEM = 'ema_'  # how the name of an average begins in a step of the trajectory
MAX_LABEL = 150  # bytes of the text of a sampler in a file's name
RAW = ''  # names the weights themselves, where an average of them could be named

# What earlier versions did not know, by section: the value that means what they did, or ANY for a key
# that decides nothing in a run, whose value is free. (`earlier_search` does the same for searches.)
ANY = object()
LATER: dict[str, dict[str, Any]] = {
    'dataset': {'flip': False, 'crop': ANY, 'name': '', 'data_dir': '', 'path': ''},
    'evaluation': {'second': ANY, 'bytes': ANY},
    'model': {
        'precision': 'default',
        'noise_scale': 1.0,
        'logvar_channels': 128,
        'skip_scaling': None,
        'times': 1,
    },
    'prior': {'precision': 'default'},
    'train': {'evaluate_every': 0, 'evaluate_samples': ANY, 'wandb': ANY},
}


def candidates_file(search: str) -> str:
    """Returns the name of the file with every candidate of the search named `search`."""
    return f'{search}.jsonl'


def state_file(search: str) -> str:
    """Returns the name of the file with the state of the search named `search`."""
    return f'{search}_state.json'


def item_name(ema: str) -> str:
    """Returns the name, in a step of the trajectory, of an average, or of the weights themselves."""
    return f'{EMA_ITEM}{ema}' if ema else 'params'


def averages_in(step: epath.Path) -> list[str]:
    """Returns the names of the averages that a step of the trajectory, by its folder, holds."""
    items = (path.name for path in step.iterdir())
    return sorted(item.removeprefix(EMA_ITEM) for item in items if item.startswith(EMA_ITEM))


def lost_snapshots(workdir: epath.Path, trajectory: Trajectory, step: int, last: int) -> str:
    """Returns a line that names the snapshots that are gone from a run that trained to `step`, or ''.

    `last` is the step at which its training ends.
    """
    folder = workdir / TRAJECTORY
    due = [s for s in range(step + 1) if trajectory.due(s, last)]
    lost = [s for s in due if not (folder / str(s) / item_name(RAW)).exists()]
    return f'{folder} has lost the snapshots of these steps: {listed(lost)}' if lost else ''


def weights_label(ema: str) -> str:
    """Returns what people are told of weights: 'ema 0.99', or 'weights' for the weights themselves."""
    return f'ema {ema}' if ema else 'weights'


def weights_file_label(ema: str) -> str:
    """The same as a part of a file's name: 'ema0.99' or 'weights'."""
    return weights_label(ema).replace(' ', '')


def sampler_file_label(spec: str) -> str:
    """Returns a sampler's text as a part of a file's name: without commas and slashes.

    A long one, which with the rest of the name would be too long for a file system, is cut, and ends in
    a checksum of all of it.
    """
    label = spec.replace(',', '-').replace('/', '-').encode()
    if len(label) > MAX_LABEL:
        digest = hashlib.sha256(label).hexdigest()[:8]
        return f'{label[: MAX_LABEL - 9].decode(errors="ignore")}-{digest}'
    return label.decode()


def is_new(workdir: epath.Path, config: Mapping[str, Any], name: str = CONFIG) -> bool:
    """Returns whether `workdir` is free for a run of `config`; False if it holds this very run.

    Writes nothing. A config file that was cut short while it was written does not count: the folder
    is free. Raises UserError, naming the keys that differ, if another run lives there.
    """
    path = workdir / name
    if path.exists():
        stored = read_record(workdir, name, dict)
        if name == SEARCH:
            stored, config = earlier_search(stored), earlier_search(config)
        differing = differences(_completed(stored, config), config)
        if differing:
            raise UserError(
                f'{workdir} holds another run; differing keys: {"; ".join(differing)}. Choose '
                'another --workdir, or start afresh with --fresh (the old folder is kept aside)'
            )
        return False
    unfinished = lambda path: path.name == locks.LOCK or is_unfinished(path, name)  # noqa: E731
    if workdir.exists() and not all(map(unfinished, workdir.iterdir())):
        raise UserError(
            f'{workdir} is not empty and holds no {name}: it is no run of this command. Choose '
            'another --workdir'
        )
    return True


def _completed(stored: Mapping[str, Any], config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a stored config with those keys of LATER that `config` has and the stored one has not."""
    filled = dict(stored)
    for section, keys in LATER.items():
        now = config.get(section, {})
        later = {k: now[k] if then is ANY else then for k, then in keys.items() if k in now}
        if later:
            filled[section] = later | filled.get(section, {})
    return filled


@contextlib.contextmanager
def claim(
    workdir: epath.Path, config: Mapping[str, Any], name: str = CONFIG, *, fresh: bool = False
) -> Iterator[None]:
    """Makes `workdir` the folder of the run of `config` and writes its config there.

    While the body of the `with` statement runs, no other command can claim the folder (see locks.py).
    With `fresh` an existing folder is renamed first, and the terminal is told. Raises UserError if
    another run lives there, or if another command is writing there.
    """
    if fresh:
        if workdir.exists():
            with locks.hold(workdir):
                print(f'  the old {workdir} is now {set_aside(workdir)}', flush=True)
        interrupts.tell(f'{interrupts.CONTINUES} without --fresh')
    is_new(workdir, config, name)  # before the folder is touched
    with locks.hold(workdir):
        if is_new(workdir, config, name):
            write_config(workdir, config, name)
        yield


def set_aside(workdir: epath.Path) -> epath.Path | None:
    """Renames an existing run folder to the first free `<name>.old<n>`.

    Returns the new path, or None if there was no such folder.
    """
    if not workdir.exists():
        return None
    return workdir.rename(free_name(workdir, 'old'))


def write_json(path: epath.Path, value: Any, indent: int | None = 1) -> None:
    """Writes a value as JSON, whole or not at all; with `indent` None on one line."""
    write_text(path, json.dumps(value, indent=indent) + '\n')


def write_record(path: epath.Path, value: Mapping[str, Any], indent: int | None = 1) -> None:
    """Writes an object as `write_json` does, with the checksum that `read_record` compares."""
    write_json(path, sealed(value), indent)


def write_config(workdir: epath.Path, config: Mapping[str, Any], name: str = CONFIG) -> None:
    """Writes a resolved config into a run folder, and makes the folder if it is not there."""
    workdir.mkdir(parents=True, exist_ok=True)
    write_record(workdir / name, config)


def read_config(workdir: epath.Path, name: str = CONFIG) -> dict[str, Any]:
    """Returns the resolved config of a run folder. Raises UserError if it is no run folder."""
    path = workdir / name
    if not path.exists():
        near = [p.name for p in workdir.parent.iterdir()] if workdir.parent.is_dir() else []
        close = difflib.get_close_matches(workdir.name, near, n=1)
        hint = f'; did you mean {workdir.parent / close[0]}?' if close else ''
        if name == CONFIG and (workdir / SEARCH).exists():
            hint = (
                ': its search is not finished (cm_jax.lcsc.opened.open_search shows how far it is)'
            )
        raise UserError(f'{workdir} is no run folder: it has no {name}{hint}')
    return read_record(workdir, name, dict)


def read_record(
    workdir: epath.Path, name: str, parse: Callable[[Any], Any] = lambda value: value
) -> Any:
    """Returns `parse` of what a JSON file of a run folder holds.

    Raises UserError if the file is damaged. The error names it and the line, and says what to do.
    """
    return read_json(workdir / name, REMEDIES.get(name, SEARCH_AGAIN), parse)


def read_card(workdir: epath.Path) -> dict[str, Any]:
    """Returns the data card of a run folder. Raises UserError if it is damaged."""

    def parse(card: Any) -> dict[str, Any]:
        return {**card, 'image_shape': card['image_shape'], 'num_classes': card['num_classes']}

    return read_record(workdir, DATA_CARD, parse)


def store_card(workdir: epath.Path, source: Source) -> dict[str, Any]:
    """Returns the card of a data source, and stores it in the run folder if there is none.

    Raises UserError, naming what differs, if the data is not what the card that was stored with it,
    or the one in the run folder, says.
    """
    if source.card is not None:
        card.check(source.card, source)
    path = workdir / DATA_CARD
    if path.exists():
        stored = read_card(workdir)
        card.check(stored, source)
        return stored
    made = {**card.make(source), 'crop': source.crop}
    write_record(path, made)
    return made
