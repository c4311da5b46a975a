"""`convert` with one more network, 'tiny': that of tests/helpers/tiny.py, on the digits."""

from cm_jax import cli, convert
from cm_jax.models.presets import PRESETS, Preset
from cm_jax.weights import published
from tests.helpers import tiny

SHAPE, CLASSES = (8, 8, 1), 10


def preset() -> Preset:
    """The network of tests/helpers/tiny.py with weights in EDM's layout."""
    return Preset(tiny.get_config().model.to_dict(), SHAPE, CLASSES, 'edm')


if __name__ == '__main__':
    PRESETS['tiny'] = preset()
    published.DATA[SHAPE[0]] = {'source': 'digits'}
    cli.run(convert.main, arguments=True)
