"""Settings: what a config says, parsed once, with defaults for what it lacks and refusals by name."""

import dataclasses
import itertools
import json
import re

import pytest

from cm_jax.config import base_config, search_config, to_plain
from cm_jax.errors import UserError
from cm_jax.settings import (
    RunSettings,
    SearchSettings,
    Trajectory,
    WeightsOf,
    parse_run,
    parse_search,
)
from tests.helpers import tiny, tiny_search
from tests.helpers.refusals import refusal

KINDS = ((parse_run, RunSettings, base_config), (parse_search, SearchSettings, search_config))


def plain(settings):
    """Settings as JSON; in the sections that stay mappings it tells no list from a tuple."""
    return json.loads(json.dumps(dataclasses.asdict(settings)))


@pytest.mark.parametrize('parse, settings, config', KINDS, ids=['run', 'search'])
def test_the_base_configs_say_the_defaults(parse, settings, config):
    assert parse(config().to_dict()) == settings()
    assert plain(parse(to_plain(config()))) == plain(settings())


@pytest.mark.parametrize(
    'parse, config', [(parse_run, tiny.get_config), (parse_search, tiny_search.get_config)]
)
def test_a_config_means_the_same_after_json(parse, config):
    parsed, again = parse(config('ect').to_dict()), parse(to_plain(config('ect')))
    assert plain(again) == plain(parsed)
    for field in dataclasses.fields(parsed):
        one, other = getattr(parsed, field.name), getattr(again, field.name)
        assert isinstance(one, dict) or one == other, field.name  # tuples are tuples again


@pytest.mark.parametrize('parse, settings, config', KINDS, ids=['run', 'search'])
def test_what_an_old_config_lacks_has_its_default(parse, settings, config):
    """Whole sections, and single keys of a section; mappings are the part's own, as they stand."""
    whole = to_plain(config())
    default = plain(settings())
    assert parse({}) == settings()
    for name, value in whole.items():
        rest = {key: other for key, other in whole.items() if key != name}
        assert plain(parse(rest)) == default, name
        if dataclasses.is_dataclass(getattr(settings(), name)):
            for key in value:
                section = {k: v for k, v in value.items() if k != key}
                assert plain(parse(whole | {name: section})) == default, f'{name}.{key}'


def test_what_is_set_is_what_is_parsed():
    found = parse_run(
        {
            'steps': 7,
            'ema_rates': [0.5, 0.9],
            'model': {'name': 'adm_unet', 'channel_mult': [1, 2]},
            'prior': {},
            'teacher': {'workdir': 'runs/edm', 'step': 0, 'ema': '0.9'},
        }
    )
    assert (found.steps, found.ema_rates) == (7, (0.5, 0.9))
    assert found.model == {'name': 'adm_unet', 'channel_mult': [1, 2]} and found.prior == {}
    assert found.teacher == WeightsOf(workdir='runs/edm', step=0, ema='0.9')
    assert found.init_from == WeightsOf() and found.init_from.step is None


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunSettings().steps = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunSettings().train.log_every = 3


def test_wrong_keys_are_refused_with_the_legal_ones():
    for parse, config, message in (
        (parse_run, {'step': 3}, r"config\.step 'step' \(did you mean 'steps'\?\); legal: .*seed"),
        (parse_run, {'serch': {}}, r"config\.serch 'serch'.*legal: batch_size, .*trajectory"),
        (
            parse_run,
            {'train': {'log_evry': 3}},
            r"config\.train\.log_evry.*did you mean 'log_every'",
        ),
        (
            parse_run,
            {'teacher': {'folder': ''}},
            r'config\.teacher\.folder.*legal: ema, step, workdir',
        ),
        (parse_run, {'evaluation': {'seed': 1}}, r"config\.evaluation\.seed.*did you mean 'seeds'"),
        (parse_search, {'budgets': {}}, r"config\.budgets.*did you mean 'budget'"),
        (parse_search, {'basis': {'runs': ''}}, r'config\.basis\.runs.*legal: dtype, .*workdir'),
        (parse_search, {'controls': {'post_hoc': ()}}, r"did you mean 'posthoc'"),
    ):
        said = refusal(parse, config)
        assert re.search(message, said), f'{config} must say {message!r}, says {said!r}'
        assert '\n' not in said


def test_numbers_that_contradict_each_other_are_refused():
    for parse, section, values, message in (
        (parse_search, 'budget', {'samples': 30}, r'samples 30 .* multiple of the batch_size 500'),
        (
            parse_search,
            'budget',
            {'selection_seeds': []},
            r'selection_seeds must hold one, got \(\)',
        ),
        (parse_run, 'evaluation', {'seeds': []}, r'seeds must be different numbers, got \(\)'),
        (parse_search, 'evaluation', {'seeds': [1, 1]}, r'different numbers, got \(1, 1\)'),
    ):
        said = refusal(parse, {section: values})
        assert re.search(message, said), f'{section}: {values} must say {message!r}: {said!r}'


def test_a_config_of_the_other_kind_is_refused_as_such():
    said = refusal(parse_run, to_plain(search_config()))
    assert 'config.basis is a key of the config of a search' in said
    assert 'one of a training run, such as configs/digits_ect.py, is needed' in said
    said = refusal(parse_search, to_plain(base_config()))
    assert 'config.batch_size is a key of the config of a training run' in said
    assert 'one of a search, such as configs/digits_ect_lcsc.py, is needed' in said
    assert parse_run({'evaluation': {}, 'seed': 1}).seed == parse_search({'seed': 1}).seed == 1


def test_a_trajectory_keeps_every_so_many_steps_of_its_window_and_the_last():
    window = Trajectory(start=3, every=4)
    assert [step for step in range(14) if window.due(step, 13)] == [3, 7, 11, 13]
    assert [step for step in range(6) if Trajectory(every=2).due(step, 5)] == [0, 2, 4, 5]
    assert [step for step in range(6) if Trajectory(start=100).due(step, 5)] == [5]
    for start, every, last in itertools.product((0, 1, 3, 9), (1, 2, 4, 100), (0, 1, 5, 8, 9, 13)):
        window = Trajectory(start=start, every=every)
        kept = sum(window.due(step, last) for step in range(last + 1))
        assert window.count(last) == kept, (start, every, last)


def test_the_images_that_a_run_sees_are_its_steps_times_its_batch():
    assert RunSettings(steps=3, batch_size=16).images_seen() == 48
    with pytest.raises(UserError, match=r'config\.steps is not set'):
        RunSettings(batch_size=16).images_seen()


@pytest.mark.parametrize('config', [{'train': 3}, {'model': None}, {'evaluation': 'inception'}])
def test_a_section_that_is_none_is_refused_by_name(config):
    ((name, value),) = config.items()
    with pytest.raises(UserError, match=rf'config\.{name} is a section .* got {value!r}'):
        parse_run(config)
