"""A folder of EDM2's snapshots, which differ in training time and in the width of their average."""

import pathlib
import re
from typing import NamedTuple

from cm_jax.core.ema import MAX_SIGMA_REL
from cm_jax.errors import UserError

SNAPSHOT = re.compile(r'(.*)-(\d+)-(\d+\.\d+)\.pkl')


class Snapshot(NamedTuple):
    """A file of EDM2: an average of relative width `sigma_rel` after `kimg` thousand images."""

    path: pathlib.Path
    kimg: int
    sigma_rel: float


def snapshots(folder: pathlib.Path) -> list[Snapshot]:
    """Returns the snapshots NAME-KIMG-SIGMA_REL.pkl in a folder, by training time and width.

    EDM2's are called like edm2-img64-s-0033554-0.050.pkl. Raises UserError if there are none, if
    they are of several networks (NAME), or if two are of the same time and width or one has a width
    that is out of its range.
    """
    matches = [(path, SNAPSHOT.fullmatch(path.name)) for path in sorted(folder.iterdir())]
    found = [(path, match) for path, match in matches if match]
    if not found:
        raise UserError(
            f'{folder} holds no snapshots that are called NAME-KIMG-SIGMA_REL.pkl, such as '
            'edm2-img64-s-0033554-0.050.pkl'
        )
    networks = sorted({match[1] for _, match in found})
    if len(networks) > 1:
        raise UserError(
            f'{folder} holds snapshots of several networks: {", ".join(networks)}; legal: of one'
        )
    listed: dict[tuple[int, float], Snapshot] = {}
    for path, match in found:
        one = Snapshot(path=path, kimg=int(match[2]), sigma_rel=float(match[3]))
        if not 0 < one.sigma_rel < MAX_SIGMA_REL:
            raise UserError(
                f'{path} has the sigma_rel {one.sigma_rel} in its name; legal: in (0, '
                f'{MAX_SIGMA_REL:.4f})'
            )
        other = listed.setdefault((one.kimg, one.sigma_rel), one)
        if other is not one:
            raise UserError(
                f'{path.name} and {other.path.name} in {folder} are of the same time and sigma_rel'
            )
    return [listed[key] for key in sorted(listed)]
