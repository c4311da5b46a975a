"""Wrong names and wrong keys are refused in one line that lists the legal ones."""

import math
from collections.abc import Sequence

import pytest

from cm_jax.bounds import Count, Rate
from cm_jax.errors import UserError, build_from, check_name, damage_is_one_line


def test_unknown_name_lists_the_legal_ones_and_guesses():
    with pytest.raises(
        UserError, match=r"unknown fruit 'aple' \(did you mean 'apple'\?\)"
    ) as error:
        check_name('fruit', 'aple', ('pear', 'apple'))
    assert 'legal: apple, pear' in str(error.value)


def test_what_a_library_says_of_an_object_is_its_type():
    class Inner:
        pass

    for thing in (Inner(), object()):
        with (
            pytest.raises(
                UserError, match=rf'x is .* \(TypeError: {type(thing).__name__} is bad\)$'
            ),
            damage_is_one_line('x'),
        ):
            raise TypeError(f'{thing!r} is bad')


def test_build_from_refuses_unknown_missing_and_wired_settings():
    def factory(net, size, depth=2):
        return net, size, depth

    assert build_from('model', factory, {'size': 3}, net='n') == ('n', 3, 2)
    with pytest.raises(
        UserError, match=r'config\.model\.sise.*did you mean .size.*legal: depth, size'
    ):
        build_from('model', factory, {'sise': 3}, net='n')
    with pytest.raises(UserError, match=r'config\.model\.net'):
        build_from('model', factory, {'net': 'other', 'size': 3}, net='n')
    with pytest.raises(UserError, match=r'config\.model lacks size; its keys: size, depth'):
        build_from('model', factory, {}, net='n')


def test_build_from_refuses_what_an_annotation_does_not_take():
    def factory(net, size: Count, rates: Sequence[Rate] = ()):
        return net, size, rates

    assert build_from('model', factory, {'size': 3.0, 'rates': [0.5]}, net=7) == (7, 3, (0.5,))
    for settings, message in (
        ({'size': 0}, 'config.model.size must be a whole number in [1, 2147483647], got 0'),
        (
            {'size': 1, 'rates': (0.5, math.nan)},
            'config.model.rates must be a list with each entry a number in [0, 1), got (0.5, nan)',
        ),
    ):
        with pytest.raises(UserError) as raised:
            build_from('model', factory, settings, net='n')
        assert str(raised.value) == message
