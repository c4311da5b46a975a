"""docs/recipes.md is current and has every config with a published run; wrong files are refused."""

import importlib

import pytest
from etils import epath

from cm_jax import recipes
from cm_jax.errors import UserError
from cm_jax.reports.published import missing, read, resolved
from tests.helpers.paths import ROOT

UNPUBLISHED = {'cifar10_flow.py'}  # the control of CUD: no paper has this run
FILE = """
title = 'ECT'
paper = 'arXiv 2406.14548'
code = 'locuslab/ect'
[settings]
{shared}
[[rows]]
name = 'CIFAR-10'
config = '{config}'
[rows.settings]
{own}
"""


@pytest.fixture(scope='module')
def families():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return [read(path, recipes.config_of) for path in sorted(recipes.PUBLISHED.glob('*.toml'))]


@pytest.fixture
def family(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)

    def written(shared='', own='', config='cifar10_ect.py'):
        path = epath.Path(tmp_path) / 'file.toml'
        path.write_text(FILE.format(shared=shared, own=own, config=config))
        return read(path, recipes.config_of)

    return written


def test_the_page_is_what_the_command_writes(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert (ROOT / recipes.PAGE).read_text() == recipes.recipes(), (
        'python -m cm_jax.recipes makes docs/recipes.md anew'
    )


def test_a_row_must_have_what_its_config_sets_and_how_it_is_trained_and_scored(family):
    config = recipes.config_of('cifar10_ect.py')
    own = [f'objective.{key}' for key in config['objective']]
    (row,) = family(shared="dataset.flip = [false, 'a.sh:1']").rows
    lacking = missing(config, row)
    assert {'model.dtype', 'model.precision', 'optimizer.learning_rate', *own} <= {*lacking}
    assert {'init_from.workdir', 'sampling.ema', 'evaluation.bytes'} <= {*lacking}
    assert 'dataset.flip' not in lacking and 'train.log_every' not in lacking
    search = recipes.config_of('cifar10_cd_lcsc.py')
    (row,) = family(shared="budget.samples = [5000, 'a.sh:1']", config='cifar10_cd_lcsc.py').rows
    assert 'basis.start' in missing(search, row) and 'budget.samples' not in missing(search, row)


def test_every_config_with_a_published_run_is_in_it(families):
    names = set()
    for path in (ROOT / 'configs').glob('*.py'):
        published = path.name.startswith(('cifar10_', 'imagenet64_', 'lsun256_'))
        if published and path.name not in UNPUBLISHED:
            module = importlib.import_module(f'configs.{path.stem}')
            variants = getattr(module, 'VARIANTS', None)
            names |= {f'{path.name}:{v}' for v in variants} if variants else {path.name}
    rows = [row.config for family in families for row in family.rows if row.config]
    assert names <= set(rows) and len(rows) == len(set(rows)), names - set(rows)


def test_ours_is_the_config_with_the_defaults_that_it_leaves_out(monkeypatch):
    monkeypatch.chdir(ROOT)
    config = recipes.config_of('cifar10_ect.py')
    ours = resolved(config)
    assert ours['optimizer.learning_rate'] == config['optimizer']['learning_rate'] == 1e-4
    assert 'b2' not in config['optimizer'] and ours['optimizer.b2'] == 0.999
    assert 'embedding' not in config['model'] and ours['model.embedding'] == 'positional'
    assert ours['images'] == config['steps'] * config['batch_size']
    search = resolved(recipes.config_of('cifar10_cd_lcsc.py'))
    assert search['budget.samples'] == 5000 and search['search.method'] == 'evolution'


def test_a_line_says_whether_ours_is_the_same_and_a_row_goes_before_what_is_shared(family):
    read_family = family(
        shared="""batch_size = [512, 'a.sh:1', 'never shown']
        optimizer.b1 = [0.9, 'a.sh:2']
        evaluation.samplers = [['onestep'], 'a.sh:3', 'two steps beside it']""",
        own="""batch_size = [128, 'b.sh:1']
        objective.c = ['?', 'b.sh:2', 'not in the paper']""",
    )
    (row,) = read_family.rows
    assert [(line.mark, line.key, line.paper, line.ours, line.source) for line in row.lines] == [
        ('', 'batch_size', '128', '128', 'b.sh:1'),
        ('', 'optimizer.b1', '0.9', '0.9', 'a.sh:2'),
        ('≠', 'evaluation.samplers', 'onestep', 'onestep; multistep@80,0.821', 'a.sh:3'),
        ('?', 'objective.c', '?', '0.0', 'b.sh:2'),
    ]
    page = recipes.page([read_family])
    assert '| ≠ | `evaluation.samplers` | onestep | onestep; multistep@80,0.821 | two steps' in page
    assert (
        '| ECT: CIFAR-10 | `cifar10_ect.py` | 4 | `evaluation.samplers` | `objective.c` |' in page
    )


def test_a_wrong_file_is_refused_with_what_is_wrong(family):
    for own, words in (
        ("batchsize = [128, 'a.sh:1']", ["'batchsize'", "did you mean 'batch_size'?"]),
        ("batch_size = [512, 'a.sh:1']", ['batch_size: 512', '128 here', 'nothing says why']),
        ("batch_size = [128, 'a.sh:1', 'smaller']", ['batch_size: 128', 'a reason: smaller']),
        ("batch_size = ['?', 'a.sh:1']", ['batch_size: ?', 'nothing says why']),
        ('batch_size = 128', ['batch_size must be [value, source]', '128']),
        ("batch_size = [128, '']", ['batch_size must be [value, source]']),
        ('batch_size = [', ['Invalid value']),
    ):
        with pytest.raises(UserError) as refused:
            family(own=own)
        text = str(refused.value)
        assert 'file.toml' in text and all(word in text for word in words), (own, text)
    with pytest.raises(UserError, match=r"unknown config 'cifar10_etc.py'.*'cifar10_ect.py'"):
        family(config='cifar10_etc.py')
    with pytest.raises(UserError, match="unknown variant 'xs'"):
        family(config='imagenet64_ect.py:xs')


def test_the_command_needs_the_folder_of_the_configs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match='run this in the root of the repository'):
        recipes.recipes()
