"""Settings: what a config says, parsed once, with defaults for what it lacks and refusals by name."""

import dataclasses
import json
import re

import pytest

from cm_jax.config import base_config, search_config, to_plain
from cm_jax.errors import UserError
from cm_jax.settings import (
    MAX_SEED,
    Evaluation,
    RunSettings,
    SearchSettings,
    Trajectory,
    WeightsOf,
    check_numbers,
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
        (parse_run, {'search': {}}, r"config\.search 'search'.*legal: batch_size, .*trajectory"),
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


def test_numbers_that_cannot_be_are_refused_by_key_and_value():
    for parse, section, key, value, message in (
        (parse_run, 'train', 'log_every', 0, r'config\.train\.log_every must be at least 1, got 0'),
        (parse_run, 'train', 'resume_every', -1, r'train\.resume_every must be at least 1, got -1'),
        (parse_run, 'train', 'resume_keep', 0, r'train\.resume_keep must be at least 1, got 0'),
        (parse_run, 'train', 'stop_after_skipped', 0, r'stop_after_skipped must be at least 1'),
        (parse_run, 'train', 'evaluate_every', -1, r'evaluate_every must .* got -1 and 1000'),
        (parse_run, 'train', 'evaluate_samples', 1, r'evaluate_samples at least 2, got 0 and 1$'),
        (parse_run, 'trajectory', 'every', 0, r'trajectory\.every must be at least 1, got 0'),
        (parse_run, 'sampling', 'every', 0, r'sampling\.every and count .* got 0 and 64'),
        (parse_run, 'sampling', 'count', 0, r'sampling\.every and count .* got 1000 and 0'),
        (parse_run, 'evaluation', 'samples', 1, r'samples >= 2 and batch_size >= 1, got 1 and 500'),
        (parse_run, 'evaluation', 'batch_size', 0, r'batch_size >= 1, got 5000 and 0'),
        (
            parse_search,
            'budget',
            'samples',
            30,
            r'budget\.samples 30 .* multiple of the batch_size',
        ),
        (parse_search, 'budget', 'samples', 0, r'budget\.samples 0 must be at least 2'),
        (parse_search, 'budget', 'generations', -1, r'generations must be at least 0.* got -1'),
        (parse_search, 'budget', 'finalists', 0, r'finalists at least 1.* got 125, 0'),
        (parse_search, 'budget', 'selection_seeds', [], r'selection_seeds must hold one.*\(\)'),
        (parse_search, 'controls', 'windows', -1, r'controls\.windows must be at least 0, got -1'),
        (
            parse_search,
            'controls',
            'bema',
            [0.2, 0.0],
            r'bema .* powers above 0, got \(0\.2, 0\.0\)',
        ),
        (parse_search, 'evaluation', 'seeds', [], r'seeds must be different numbers.* got \(\)'),
    ):
        said = refusal(parse, {section: {key: value}})
        assert re.search(message, said), f'{section}.{key}={value} must say {message!r}: {said!r}'


def test_seeds_are_different_numbers_in_range():
    for seeds in ((), (1, 1), (-1,), (MAX_SEED + 1,), (3, MAX_SEED + 1)):
        said = refusal(check_numbers, 10, seeds, 5)
        assert f'different numbers from 0 to {MAX_SEED}, got {seeds}' in said
        with pytest.raises(UserError, match='seeds'):
            Evaluation(seeds=seeds)
    check_numbers(2, (0, MAX_SEED), 1)


def test_a_trajectory_keeps_every_so_many_steps_of_its_window_and_the_last():
    window = Trajectory(start=3, every=4)
    assert [step for step in range(14) if window.due(step, 13)] == [3, 7, 11, 13]
    assert [step for step in range(6) if Trajectory(every=2).due(step, 5)] == [0, 2, 4, 5]
    assert [step for step in range(6) if Trajectory(start=100).due(step, 5)] == [5]


def test_the_images_that_a_run_sees_are_its_steps_times_its_batch():
    assert RunSettings(steps=3, batch_size=16).images_seen() == 48
    with pytest.raises(UserError, match=r'config\.steps is not set'):
        RunSettings(batch_size=16).images_seen()


@pytest.mark.parametrize('config', [{'train': 3}, {'model': None}, {'evaluation': 'inception'}])
def test_a_section_that_is_none_is_refused_by_name(config):
    ((name, value),) = config.items()
    with pytest.raises(UserError, match=rf'config\.{name} is a section .* got {value!r}'):
        parse_run(config)
