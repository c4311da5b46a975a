"""Wrong names and wrong keys are refused in one line that lists the legal ones."""

import pytest

from cm_jax.errors import UserError, build_from, check_name


def test_unknown_name_lists_the_legal_ones_and_guesses():
    with pytest.raises(
        UserError, match=r"unknown fruit 'aple' \(did you mean 'apple'\?\)"
    ) as error:
        check_name('fruit', 'aple', ('pear', 'apple'))
    assert 'legal: apple, pear' in str(error.value)


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
