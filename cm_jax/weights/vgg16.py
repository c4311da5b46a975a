"""The extractor VGG-16 from a file of its public weights: `load(path) -> Extractor`.

The file is one that LPIPS takes as its `features` with the network 'vgg' (the table at the top of
weights/lpips.py): torchvision's vgg16, whose classifier is not read, or the whole LPIPS of one of two
packages. It may have any format of weights/read.py.
"""

import pathlib

from cm_jax.errors import UserError
from cm_jax.files import expanded, sha256
from cm_jax.models import vgg16
from cm_jax.types import Extractor
from cm_jax.weights.lpips import read_part

NAME = 'vgg16'


def load(path: str | pathlib.Path) -> Extractor:
    """Returns the feature extractor of a weights file; its parameters are numpy arrays on the host.

    Its checksum is that of the file. Raises UserError, in one line, if the file is missing or damaged,
    or a tensor is missing, unexpected, of the wrong shape or not finite.
    """
    if not isinstance(path, str | pathlib.Path) or not str(path):
        raise UserError(
            f'the extractor {NAME!r} needs the file of its weights (vgg16-397923af.pth of torchvision, '
            f'or another file that LPIPS takes), got {path!r}'
        )
    path = pathlib.Path(expanded(path))
    return Extractor(
        name=NAME,
        score='fd_vgg16',
        dim=vgg16.DIM,
        apply=vgg16.features,
        params=read_part(path, vgg16.NETWORK, 'features')['features'],
        logits=None,
        checksum=sha256(path),
        resize=vgg16.RESIZE,
    )
