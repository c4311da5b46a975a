"""PyTorch's two file formats, read without PyTorch: the zip archive and the legacy stream."""

import io
import struct
import zipfile
from typing import IO, Any

from cm_jax.data.readers import archives
from cm_jax.data.readers.inert import read_exactly
from cm_jax.errors import UserError
from cm_jax.weights.pickles import Kind, Storage, unpickle

MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_START = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'  # the pickle of MAGIC
PROTOCOL = 1001
MAX_PICKLE = 1 << 26  # bytes of data.pkl, which names the tensors and does not hold them


def load_zip(archive: zipfile.ZipFile) -> Any:
    """Returns the object in a file of torch.save of PyTorch 1.6 or later.

    The archive holds the pickle `<name>/data.pkl` and each storage in a file `<name>/data/<key>`.
    Raises UserError if it is another kind of archive, its numbers are big-endian, or it holds more than
    `archives.check_total` allows.
    """
    archives.check_total(archive)
    names = archive.namelist()
    pickles = [name for name in names if name.endswith('/data.pkl')]
    if any(name.endswith('/constants.pkl') for name in names):
        raise UserError('it is a TorchScript program; save its state_dict with torch.save')
    if len(pickles) != 1:
        raise UserError('it is a zip archive and holds no data.pkl of torch.save')
    folder = pickles[0].removesuffix('data.pkl')
    if (
        f'{folder}byteorder' in names
        and archives.content(archive, f'{folder}byteorder') != b'little'
    ):
        raise UserError('its numbers are big-endian; legal: little-endian')
    storages: dict[str, Storage] = {}

    def storage(pid: Any) -> Storage:
        kind, key, _ = _storage_id(pid)
        if key not in storages:
            data = archives.content(archive, f'{folder}data/{key}')
            storages[key] = Storage(kind.dtype, data)
        return storages[key]

    root = archives.content(archive, pickles[0], MAX_PICKLE)
    return unpickle(io.BytesIO(root), persistent=storage)


def load_legacy(file: IO[bytes]) -> Any:
    """Returns the object in a file of torch.save of PyTorch before 1.6.

    torch.save still writes this format for a storage inside a plain pickle. It consists of five
    pickles (a magic number, the protocol, the machine, the object, the keys of its storages) and then,
    for each key, the number of values (int64) and their bytes. Raises UserError if the file is not of
    this format, and EOFError if it ends early.
    """
    if unpickle(file) != MAGIC or unpickle(file) != PROTOCOL:
        raise UserError('it is no file of torch.save')
    if not unpickle(file)['little_endian']:
        raise UserError('its numbers are big-endian; legal: little-endian')
    storages: dict[str, Storage] = {}

    def storage(pid: Any) -> Storage:
        kind, key, view = _storage_id(pid)
        if view is not None:
            raise UserError('it holds views of storages, which PyTorch before 0.4 wrote')
        return storages.setdefault(key, Storage(kind.dtype))

    root = unpickle(file, persistent=storage)
    for key in unpickle(file):
        (values,) = struct.unpack('<q', read_exactly(file, 8))
        if values < 0:
            raise ValueError(f'a storage has {values} values')
        storages[key].data = read_exactly(file, values * storages[key].dtype.itemsize)
    return root


def storage_from_bytes(content: bytes) -> Storage:
    """Returns the storage that a plain pickle of a tensor holds as the bytes of a legacy file."""
    storage = load_legacy(io.BytesIO(content))
    if not isinstance(storage, Storage):
        raise UserError('it holds a file of torch.save that is no storage')
    return storage


def _storage_id(pid: Any) -> tuple[Kind, str, Any]:
    """Returns (kind, key, view) of the id ('storage', kind, key, device, count[, view]).

    Raises UserError if the id is of another form.
    """
    if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != 'storage':
        raise UserError('it asks for a persistent object that is no storage; legal: storages')
    if not isinstance(pid[1], Kind) or not isinstance(pid[2], str):
        raise UserError('it asks for a storage of unknown numbers, or without a name')
    return pid[1], pid[2], pid[5] if len(pid) == 6 else None
