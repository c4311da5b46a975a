"""Where things are."""

import pathlib

TESTS = pathlib.Path(__file__).parent.parent
ROOT = TESTS.parent
FIXTURES = TESTS / 'fixtures'
