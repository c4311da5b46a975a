"""Every option that a docstring of configs/ or a page names is one that the config's command takes."""

import importlib
import re

import pytest
from ml_collections import ConfigDict

from tests.helpers.paths import ROOT

OPTION = re.compile(r'--config\.([a-z_]+(?:\.[a-z_]+)*)=')
COMMAND = re.compile(r'--config=(?:"\$\w+"/)?configs/(\w+)\.py(?::(\w+))?(.*)')
PAGES = (ROOT / 'README.md', ROOT / 'configs' / 'README.md', *sorted((ROOT / 'docs').glob('*.md')))
FILES = sorted((ROOT / 'configs').glob('*.py'))


def config_of(file, variant):
    get_config = importlib.import_module(f'configs.{file}').get_config
    return get_config(variant) if variant else get_config()


def options(text):
    """('FILE', 'VARIANT', 'KEY') of every option: of its line's command, or ('', '', 'KEY') of none."""
    for line in text.replace('\\\n', ' ').splitlines():
        command = COMMAND.search(line)
        file, variant = (command[1], command[2]) if command else ('', '')
        for key in OPTION.findall(command[3] if command else line):
            yield file, variant, key


def takes(config, key):
    for part in key.split('.'):
        if not isinstance(config, ConfigDict) or part not in config:
            return False
        config = config[part]
    return True


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_a_docstring_names_options_that_can_be_given(path):
    """Of another config in its commands; elsewhere of its own, or for a search of its run."""
    for file, variant, key in options(importlib.import_module(f'configs.{path.stem}').__doc__):
        assert takes(config_of(file or path.stem, variant), key), (file or path.stem, key)


def test_the_commands_of_the_pages_name_options_that_can_be_given():
    found = [option for path in PAGES for option in options(path.read_text()) if option[0]]
    assert found
    for file, variant, key in found:
        assert takes(config_of(file, variant), key), (file, key)
