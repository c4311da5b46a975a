"""configs/README.md lists every config and variant, and nothing else, with its command and its cost."""

import importlib
import re

import pytest

from tests.helpers.paths import ROOT

CONFIGS = ROOT / 'configs'
INDEX = (CONFIGS / 'README.md').read_text()
DATASETS = [path.stem for path in (CONFIGS / 'common').glob('*.py')]
COMMAND = re.compile(r'^python -m cm_jax\.(\w+) +--config=configs/(\S+) --workdir=(\S+)', re.M)


def names():
    """'FILE.py' of every file of configs/, or 'FILE.py:VARIANT' of every variant."""
    for path in sorted(CONFIGS.glob('*.py')):
        variants = getattr(importlib.import_module(f'configs.{path.stem}'), 'VARIANTS', None)
        yield from [f'{path.name}:{v}' for v in variants] if variants else [path.name]


def config_of(name):
    file, _, variant = name.partition(':')
    module = importlib.import_module(f'configs.{file.removesuffix(".py")}')
    return module.get_config(*filter(None, [variant]))


def folder_of(name):
    """The run folder of a config: runs/DATASET/METHOD or runs/DATASET/METHOD_VARIANT."""
    (dataset,) = (d for d in DATASETS if name.startswith(f'{d}_'))
    method = name.removeprefix(f'{dataset}_').replace('.py', '').replace(':', '_')
    return f'runs/{dataset}/{method}'


# Data sets whose tables have the paper's FID.
PUBLISHED = ('cifar10', 'imagenet64', 'lsun256', 'mnist')
NO_NUMBER = ('not confirmed', 'in a figure', 'not known', 'none')


def rows():
    """The cells of each row of the tables that is about a config."""
    lines = [line for line in INDEX.splitlines() if line.startswith('| `')]
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]


NAMES = list(names())


def test_the_tables_have_every_config_and_variant_and_nothing_else():
    assert sorted(row[0].strip('`') for row in rows()) == sorted(NAMES)


def test_the_commands_are_those_of_every_config_and_variant_and_nothing_else():
    commands = COMMAND.findall(INDEX)
    assert len(commands) == INDEX.count('--workdir=')
    assert sorted(name for _, name, _ in commands) == sorted(NAMES)
    for command, name, folder in commands:
        assert command == ('search' if 'basis' in config_of(name) else 'train')
        assert folder == folder_of(name)


@pytest.mark.parametrize('row', rows(), ids=lambda row: row[0].strip('`'))
def test_a_row_says_where_the_config_starts_what_it_costs_and_its_state(row):
    name, _, start, cost, *papers, state = row
    name = name.strip('`')
    assert len(papers) == name.startswith(PUBLISHED)
    config = config_of(name)
    if 'basis' in config:
        before = config.basis.workdir
        candidates = 10 + config.budget.generations * config.search.population
        amount = f'{candidates:,} candidates'
        if config.search.method == 'gradient':
            amount = f'{config.budget.generations} steps'
        expected = f'{amount} of {config.budget.samples:,}'
    else:
        before = config.init_from.workdir
        expected = f'{config.steps:,} steps of {config.batch_size:,}'
    assert cost.partition(';')[0] == expected
    assert start.partition(',')[0].strip('`') == before.rpartition('/')[2]
    text = ' '.join(importlib.import_module(f'configs.{name.partition(".")[0]}').__doc__.split())
    figure = re.match(r'run by us: (\d+\.\d+ ± \d+\.\d+)', state)
    if figure is None:
        assert (state.startswith('not run') and 'not run' in text) or state.startswith('run by us')
    elif 'not run' in text:  # of another variant
        assert figure[1] in text
    for fid in papers:
        numbers = re.findall(r'\d+\.\d+', fid)
        assert numbers or fid in NO_NUMBER
        assert not numbers or 'FID' in text
        assert set(numbers) <= set(re.findall(r'\d+\.\d+', text))


@pytest.mark.parametrize('name', NAMES)
def test_every_run_folder_is_of_the_data_set_of_the_config(name):
    config, folder = config_of(name), folder_of(name)
    sections = [config.basis] if 'basis' in config else [config.init_from, config.teacher]
    for section in sections:
        assert section.workdir.rpartition('/')[0] in ['', folder.rpartition('/')[0]]
    docstring = importlib.import_module(f'configs.{name.partition(".")[0]}').__doc__
    variants = [n for n in NAMES if n.partition(':')[0] == name.partition(':')[0]]
    text = ' '.join(docstring.replace('\\\n', ' ').split())
    assert f'--config=configs/{variants[0]} --workdir={folder_of(variants[0])} ' in text + ' '
    assert all(n.partition(':')[2] in docstring for n in variants)


@pytest.mark.parametrize('name', sorted({n.partition(':')[0] for n in NAMES if ':' in n}))
def test_a_family_without_its_variant_is_the_first_one(name):
    first = next(n for n in NAMES if n.startswith(f'{name}:'))
    assert config_of(name).to_dict() == config_of(first).to_dict()
