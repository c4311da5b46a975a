"""Slips in numbers and paths: one line that names the value, status 2, at once, nothing written.

What a number may be is declared once, where the setting or the flag is; the slips and the verdicts are
made from these declarations.
"""

import inspect
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import jax.numpy as jnp
import pytest
from etils import epath

from cm_jax import cli, models
from cm_jax.bounds import described
from cm_jax.core import process
from cm_jax.errors import UserError, check_section
from cm_jax.files import check_folder
from cm_jax.objectives import build as build_objective
from cm_jax.settings import parse_run, parse_search
from cm_jax.training import optim
from tests.helpers import commands, slips, tiny, tiny_search
from tests.helpers.many_calls import call
from tests.helpers.paths import ROOT

PARSE = {'RunSettings': parse_run, 'SearchSettings': parse_search}
SECONDS = 5  # of the processor, from start to end
TINY = '--config=tests/helpers/tiny.py:ect'
TINY_SEARCH = '--config=tests/helpers/tiny_search.py'
# The commands, and what each needs before it looks at its run folder.
COMMANDS = {
    'train': (TINY,),
    'search': (TINY_SEARCH,),
    'sample': (),
    'evaluate': (),
    'tune_levels': (),
    'edit': (),
    'check_precision': (),
    'report': (),
    'study': (),
    'convert': ('import', '--from=none.pkl', '--network=cud_mnist'),
    'reference': (),
    'prepare': (),
}


def name_of(number: slips.Number) -> str:
    """The name of a number in messages."""
    return f'config.{number.section.key}.{number.key}'.replace('..', '.')


def test_every_number_declares_its_bounds_and_has_a_default_within():
    found = slips.numbers()
    assert {n.key for n in found} >= {'log_every', 'ema_rates', 'channels', 'sigma_data', 'clip'}
    for number in found:
        for kind, intervals in slips.kinds(number.hint):
            assert kind not in (int, float) or len(intervals) == 1, name_of(number)
    for section in slips.sections():
        defaults = {
            key: parameter.default
            for key, parameter in inspect.signature(section.factory).parameters.items()
            if parameter.default is not parameter.empty and key not in section.wired
        }
        if section.key:
            assert set(check_section(section.key, section.factory, defaults)) == set(defaults)


def refusal_of(number: slips.Number, value: object) -> str | None:
    """What is said of a value where the config is parsed or the part is built; None if it is legal."""
    section, key = number.section, number.key
    try:
        if section.name not in PARSE:
            check_section(section.key, section.factory, {key: value}, section.wired)
        elif section.key:
            PARSE[section.name]({section.key: {key: value}})
        else:
            PARSE[section.name]({key: value})
    except UserError as error:
        return str(error)
    return None


def test_every_number_is_judged_by_its_bounds_and_refused_by_name_and_value():
    judged = 0
    for number in slips.numbers():
        for value in slips.VALUES:
            given = (value,) if slips.is_list(number.hint) else value
            said = refusal_of(number, given)
            if slips.is_legal(number.hint, value):
                expected = None
            else:
                legal = described(number.hint)
                expected = f'{name_of(number)} must be {legal}, got {given!r}'
            # Other checks may refuse what is in its bounds, such as samples of half a batch.
            assert said == expected or (expected is None and 'multiple of' in said), said
            judged += 1
    assert judged > 60 * len(slips.VALUES)


def build(number: slips.Number, value: object) -> None:
    """Builds the part of a section that has this number."""
    section, given = number.section, {number.key: value}
    if section.key == 'model':
        models.build({'name': section.name, 'channels': 16} | given, (64, 64, 3), 10)
    elif section.key == 'prior':
        models.build_prior({'name': section.name, 'channels': 16} | given, (64, 64, 3))
    elif section.key == 'objective':
        rf = section.name in ('flow', 'catch_up', 'one_step', 'mean_flow')
        on = process.build('rf', 1e-5, 1.0) if rf else process.build('ve', 0.002, 80.0)
        required = {'sigma_data': 0.5, 'total_steps': 8, 'double_every': 8, 'halve_every': 8}
        required = {**required, 'order': 1}
        parameters = inspect.signature(section.factory).parameters
        given = {k: v for k, v in required.items() if k in parameters} | given
        build_objective({'name': section.name} | given, lambda *arguments: arguments[1], on)
    elif section.key == 'optimizer':
        optim.build({'name': 'adam', 'learning_rate': 1e-3} | given).learning_rate(jnp.int32(3))
    elif section.key == 'process':
        process.build(**{'name': 've', 't_min': 0.002, 't_max': 80.0} | given)


def test_what_is_in_its_bounds_is_built_or_refused_by_a_rule_of_its_own():
    """The ends of the bounds too: none of them ends in another error, or takes long."""
    for number in slips.numbers():
        for value in slips.legal_values(number.hint):
            given, since = (value,) if slips.is_list(number.hint) else value, time.process_time()
            try:
                build(number, given)
            except UserError as error:
                assert '\n' not in str(error)
            assert time.process_time() - since < SECONDS, (name_of(number), value)


def places(folder: pathlib.Path) -> list[tuple[str, str]]:
    """Options with a work folder that cannot be, and what is said of each."""
    (folder / 'file').write_text('mine')
    return [
        (f'--workdir={folder}/file', f'{folder}/file is no folder'),
        (f'--workdir={folder}/file/run', f'{folder}/file is no folder'),
        ('--workdir=/dev/null/x', '/dev/null is no folder'),
        ('--workdir=~nobody_here/x', "there is no user 'nobody_here'"),
    ]


def lines_of(command: str, folder: pathlib.Path) -> list[tuple[list[str], str]]:
    """Command lines with a slip each, and what is said of it."""
    before, run = list(COMMANDS[command]), f'--workdir={folder}/run'
    if command == 'reference':
        return [
            (['--extractor=pixel', '--data=folder:/dev/null/x'], '/dev/null/x'),
            (['--extractor=pixel', '--data=digits', '--to=~nobody_here/x.npz'], 'nobody_here'),
        ]
    if command == 'prepare':
        return [
            (['--dataset=flowers', '--from=/dev/null/x'], '/dev/null/x does not exist'),
            (['--dataset=flowers', '--from=~nobody_here/x'], "no user 'nobody_here'"),
        ]
    lines = [([*before, option], words) for option, words in places(folder)]
    if command == 'train':
        # First, as the module of a config that has been read stays, with its functions.
        lines.insert(0, (['--config=configs/common/digits.py', run], 'has no function get_config'))
        config = slips.config_slips(tiny.get_config('ect').to_dict(), 'RunSettings')
        lines += [([*before, run, option], str(value)) for option, value in config]
        lines += [
            (['--config=configs/digits_lcsc.py', run], 'config.basis is a key of the config of a '),
            ([*before, run, '--config.model.attn_resolutions=(16,)'], 'names resolution 16; this '),
            (['--config=~nobody_here/x.py', run], "there is no user 'nobody_here'"),
            (['--config=configs', run], '--config=configs: name a file of Python'),
            ([f'--config={folder}/config.json', run], 'config.json: name a file of Python'),
            ([*before, run, '--config.sampling.sampler=onestep+cfg2'], 'label_dropout = 0'),
            ([*before, run, '--config.init_from.workdir=/dev/null/x'], '/dev/null/x is no run'),
        ]
    if command == 'search':
        config = slips.config_slips(tiny_search.get_config().to_dict(), 'SearchSettings')
        lines += [([*before, run, option], str(value)) for option, value in config]
        swapped = 'config.batch_size is a key of the config of a training run'
        lines.append((['--config=configs/digits_edm.py', run], swapped))
    return lines


@pytest.mark.devices
@pytest.mark.parametrize('command', COMMANDS)
def test_a_slip_is_one_line_at_once_and_nothing_is_written(command, tmp_path):
    lines = lines_of(command, tmp_path)
    ended = call(command, [line for line, _ in lines], tmp_path)
    said = dict(zip((' '.join(line) for line, _ in lines), (words for _, words in lines)))
    assert len(ended) >= len(lines) and ended, command
    for one in ended:
        words = said.get(' '.join(one.line), one.line[-1].partition('=')[2])
        assert one.status == 2, one
        assert one.err.startswith('error: ') and one.err.count('\n') == 1, one
        assert words in one.err, one
        assert not one.written and one.seconds < SECONDS, one


def check_as_nobody(folder: str) -> None:
    """What a fork does: it ends with status 2 if nobody may write the folder, and may read it."""
    if os.getuid() == 0:  # root may write everywhere
        os.setuid(65534)
    check_folder(epath.Path(folder), '--workdir', writes=False)
    with cli.one_line_errors():
        check_folder(epath.Path(folder) / 'run', '--workdir')


@pytest.mark.devices
def test_a_folder_that_may_only_be_read_is_refused_to_a_command_that_writes():
    for mode, status in ((0o555, 2), (0o777, 0)):
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, mode)
            assert commands.in_fork(check_as_nobody, folder) == status


def test_there_are_many_slips(tmp_path):
    assert len(lines_of('train', tmp_path)) + len(lines_of('search', tmp_path)) >= 60


def refused(command: str, *arguments: str, **settings: object) -> str:
    """The one line of a command that is refused, in a process of its own, after SECONDS at most."""
    used = [resource.getrusage(resource.RUSAGE_CHILDREN)]
    ended = subprocess.run(
        [sys.executable, '-m', f'cm_jax.{command}', *arguments],
        **{'cwd': ROOT, 'env': commands.environment()} | settings,
        capture_output=True,
        text=True,
    )
    used.append(resource.getrusage(resource.RUSAGE_CHILDREN))
    seconds = [of.ru_utime + of.ru_stime for of in used]
    assert ended.returncode == 2 and ended.stderr.count('\n') == 1, ended.stderr[-3000:]
    assert seconds[1] - seconds[0] < SECONDS
    return ended.stderr


def test_a_config_of_another_folder_is_read_and_a_slip_in_it_refused(tmp_path):
    """The package is found, as where it is installed; what a config imports lies beside it."""
    (tmp_path / 'packages').mkdir()
    (tmp_path / 'packages' / 'cm_jax').symlink_to(ROOT / 'cm_jax')
    here, env = tmp_path / 'here', commands.environment() | {'PYTHONPATH': f'{tmp_path}/packages'}
    here.mkdir()
    config = f'--config={ROOT}/configs/digits_ect.py'
    slip = '--config.optimizer.learning_rate=nan'
    line = refused('train', config, '--workdir=run', slip, cwd=here, env=env)
    assert line == (
        'error: config.optimizer.learning_rate must be a number in (0, 1e30], got nan\n'
    )
    assert not list(here.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize('command', COMMANDS)
def test_a_slip_of_a_process_of_its_own(command, tmp_path):
    lines = lines_of(command, tmp_path)
    there = sorted(tmp_path.rglob('*'))
    for line, words in lines[:: max(1, len(lines) // 8)]:
        assert words in refused(command, *line)
    assert sorted(tmp_path.rglob('*')) == there
