"""Small files that ask for much memory, written byte by byte, and what their refusals say."""

import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import NamedTuple

import msgpack
import numpy as np

from tests.helpers import weight_files
from tests.helpers.data_files import png
from tests.helpers.weight_files import Named, Storage, Tensor, plain_pickle, tensor

MEGABYTE = 1 << 20
SIZE = 512 * MEGABYTE  # of what is packed
HUGE = struct.pack('<Q', 1 << 33)


class Bomb(NamedTuple):
    """A file and what its refusal says, as a regular expression."""

    name: str
    content: bytes
    says: str


# Packed zeros


def zeros(size: int = SIZE, head: bytes = b'') -> bytes:
    """`head` and `size` zeros, deflated; one block is repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(MEGABYTE)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + block * (size // MEGABYTE) + packer.flush()


def gzip_of(head: bytes, size: int = SIZE) -> bytes:
    end = struct.pack('<II', 0, (len(head) + size) & 0xFFFFFFFF)
    return b'\x1f\x8b\x08' + bytes(6) + b'\xff' + zeros(size, head) + end


def zip_of(name: str, size: int = SIZE, declared: int | None = None, others: dict = {}) -> bytes:  # noqa: B006
    """A zip whose entry `name` is `size` zeros and may declare another number."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        for other, content in others.items():
            archive.writestr(other, content)
    whole, start, packed = file.getvalue(), archive.start_dir, zeros(size)
    about = struct.pack('<5H', 20, 0, zipfile.ZIP_DEFLATED, 0, 33)
    about += struct.pack('<3I', 0, len(packed), size if declared is None else declared)
    about += struct.pack('<2H', len(name), 0)
    entry = b'PK\x03\x04' + about + name.encode() + packed
    listed = b'PK\x01\x02\x14\x00' + about + struct.pack('<3H2I', 0, 0, 0, 0, start) + name.encode()
    directory, count = whole[start:-22] + listed, len(others) + 1
    place = len(directory), start + len(entry)
    end = b'PK\x05\x06' + struct.pack('<4H2IH', 0, 0, count, count, *place, 0)
    return whole[:start] + entry + directory + end


def stored(name: str, content: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of one entry."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', method) as archive:
        archive.writestr(name, content)
    return file.getvalue()


# Pickles


class Asks:
    """Pickled as a call of `module.name` with arguments."""

    def __init__(self, module: str, name: str, *arguments):
        self.module, self.name, self.arguments = module, name, arguments

    def __reduce__(self):
        return Named(self.module, self.name), self.arguments


def again(function: bytes, arguments: list[bytes], times: int) -> bytes:
    """A pickle of what a function returns, over and over, for the same arguments: a module's state."""
    memo = [b'h' + bytes([index]) for index in range(len(arguments) + 1)]
    build = b'c' + function + b'q\x00' + b''.join(
        argument + b'q' + bytes([index]) for index, argument in enumerate(arguments, 1)
    )  # fmt: skip
    call = b''.join(memo) + (b'\x85', b'\x86')[len(arguments) - 1] + b'R'
    module = b'ctorch.nn.modules.conv\nConv2d\n)\x81}' + text(b'a')
    return b'\x80\x03' + build + module + b'](' + call * times + b'esb.'


def text(content: bytes) -> bytes:
    return b'X' + struct.pack('<I', len(content)) + content


def nested(times: int = 40) -> list:
    """A list of 2^times items, made of `times` lists."""
    node = [1]
    for _ in range(times):
        node = [node, node]
    return node


def pickles() -> list[Bomb]:
    names = {'n' * 900: [{str(i): 1.5 for i in range(1000)}] * 1000}
    storage = weight_files.legacy_file(Storage(np.zeros(MEGABYTE // 4, np.float32)))
    one = Tensor(Storage(np.zeros(1, np.float32)), 0, (1 << 20, 1 << 10), (0, 0))
    classes = [Named('torch.nn.modules.x', f'M{i}') for i in range(20_000)]
    numbers = b'](' + b'K\x01' * 100_000 + b'e'
    latin1 = [text(b'a' * MEGABYTE), text(b'latin1')]
    inside = b'B' + struct.pack('<I', len(storage)) + storage
    bombs = {
        'memo index': (b'\x80\x04Nr\x00\x00\x00\x10.', 'holds no tensors'),
        'memo index as text': (b'Np268435456\n.', 'holds no tensors'),
        'bytes': (b'\x80\x04\x8e' + HUGE, '8,589,934,592 bytes are declared'),
        'bytearray': (b'\x80\x05\x96' + HUGE, '8,589,934,592 bytes are declared'),
        'frame': (b'\x80\x04\x95' + HUGE, '8,589,934,592 bytes are declared'),
        'sets': (b'\x80\x04](' + b'\x8f' * 2_000_000 + b'e.', '1,000,000 operations, the limit'),
        'one text encoded': (again(b'_codecs\nencode\n', latin1, 1000), 'holds no tensors'),
        'one storage': (
            again(b'torch.storage\n_load_from_bytes\n', [inside], 1000),
            'holds no tensors',
        ),
        'one list copied': (again(b'builtins\nset\n', [numbers], 1000), 'holds no tensors'),
        'list as text': (plain_pickle([Asks('torch', 'device', nested())]), 'without end'),
        'key of tuples': (b'\x80\x02})' + b'2\x86' * 60 + b'K\x01s.', 'a tuple of tuples'),
        'tensor of one value': (
            plain_pickle({'a': one}),
            'repeats 1 values to 1,073,741,824; legal: at most 1,048,576',
        ),
        'one long name': (
            plain_pickle({'n' * MEGABYTE: {i: 1.5 for i in range(1000)}}),
            'over 1,000 characters, the limit',
        ),
        'long names': (plain_pickle(names), 'without end; legal: 100'),
        'classes': (plain_pickle(classes), 'more than 1,000 kinds of modules'),
        'number': (b'\x80\x02\x8b' + struct.pack('<i', 1 << 30) + b'.', 'is truncated or damaged'),
    }
    return [Bomb(f'{name}.pkl', *bomb) for name, bomb in bombs.items()]


# Other weights


def npy(shape: tuple, dtype: str, data: bytes = b'') -> bytes:
    """A file of NumPy whose header says `shape` and `dtype`."""
    file = io.BytesIO()
    header = {'descr': dtype, 'fortran_order': False, 'shape': shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + data


def safetensors(header: bytes, data: bytes = b'') -> bytes:
    return struct.pack('<Q', len(header)) + header + data


def weights() -> list[Bomb]:
    whole = weight_files.zip_file({'a': tensor(np.zeros(3, np.float32))})
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        others = {name: archive.read(name) for name in archive.namelist()}
    del others['weights/data/0']
    legacy = weight_files.legacy_file({'a': tensor(np.zeros(3, np.float32))})
    strings = npy((MEGABYTE,), '<U1', b'\x00\x01\x00\x00' * MEGABYTE)
    lists = b'\xdd' + struct.pack('>I', MEGABYTE)
    dicts = {i: [[{}] * 10_000] * 2 for i in range(100)}
    large = json.dumps({'a': [[]] * 6_000_000}).encode()
    return [
        Bomb('storage.pt', zip_of('weights/data/0', others=others), 'legal: at most 134,217,728'),
        Bomb(
            'storage that declares 12.pt',
            zip_of('weights/data/0', declared=12, others=others),
            'is truncated or damaged',
        ),
        Bomb('pickle.pt', zip_of('weights/data.pkl', 100 * MEGABYTE), 'legal: at most 67,108,864'),
        Bomb('values.pth', legacy[:-20] + HUGE + bytes(12), '34,359,738,368 bytes are declared'),
        Bomb('array.npz', zip_of('a.npy'), r'536,870,912 bytes, packed in .*at most 134,217,728'),
        Bomb('header.npz', stored('a.npy', npy((10**12,), '<f4')), 'not as large as its header'),
        Bomb('no text.npz', stored('a.npy', npy((10**9,), '<U0')), 'not as large as its header'),
        Bomb('texts.npz', stored('a.npy', strings), '1,048,576 strings; legal: 1 to 10,000'),
        Bomb(
            'lists of none.npz', stored('a.npy', npy((2**31, 0), '<U3')), ' 0 strings; legal: 1 to'
        ),
        Bomb('lzma.npz', stored('a.npy', npy((2,), '<f4', bytes(8)), 14), 'legal: stored, deflat'),
        Bomb('header.safetensors', safetensors(large), 'legal: at most 16,777,216'),
        Bomb('length.safetensors', HUGE + b'{', 'legal: at most 16,777,216'),
        Bomb('lists', b'\x81\xa1a' + lists * 900 + bytes(MEGABYTE), 'truncated or damaged'),
        Bomb('dicts', msgpack.packb({'a': dicts}), 'more than 1,000,000 dicts, the limit'),
    ]


# Data sets


def bits(width: int, height: int) -> bytes:
    """A PNG file of one bit a pixel."""
    return png(np.zeros((height, width), bool))


def header_only(width: int, height: int) -> bytes:
    """The beginning of a PNG file."""
    chunk = b'IHDR' + struct.pack('>2I5B', width, height, 8, 2, 0, 0, 0)
    start = b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + chunk
    return start + struct.pack('>I', zlib.crc32(chunk)) + b'\x00\x00\x00\x00IDAT' + bytes(4)


def tar_of(name: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A gzipped tar archive of one member, which is zeros."""
    member = tarfile.TarInfo(f'cifar-10-batches-py/{name}')
    member.size, member.type = SIZE, kind
    return gzip_of(member.tobuf(tarfile.GNU_FORMAT))


def data_sets() -> list[Bomb]:
    idx = struct.pack('>4B3I', 0, 0, 8, 3, SIZE >> 20, 1024, 1024)
    batch = {'data': np.zeros((1, 3072), np.uint8), 'labels': nested()}
    most = 'legal: at most 67,108,864'
    return [
        Bomb('pixels.zip', stored('a.png', bits(13_000, 13_000)), f'13000x13000 pixels; {most}'),
        Bomb('more pixels.zip', stored('a.png', header_only(60_000, 60_000)), most),
        Bomb(
            'long.zip', stored('a.png', header_only(7, 70_000)), f'7x70000 .*{most}, and 65,536 a'
        ),
        Bomb('narrow.zip', stored('a.png', bits(1, 60_000)), f'64x3840000 pixels; {most}'),
        Bomb('file.zip', zip_of('a.bmp'), '536,870,912 bytes; legal: at most 268,435,456'),
        Bomb('method.zip', stored('a.bmp', bytes(9), zipfile.ZIP_BZIP2), 'legal: stored, deflate'),
        Bomb('train-images-idx3-ubyte.gz', gzip_of(idx), 'legal: at most 134,217,728'),
        Bomb('member.tar.gz', tar_of('data_batch_1'), 'legal in an archive .* 33,554,432'),
        Bomb('header.tar.gz', tar_of('', tarfile.XHDTYPE), 'legal in an archive .* 33,554,432'),
        Bomb('name.tar.gz', tar_of('', tarfile.GNUTYPE_LONGNAME), 'legal in an archive'),
        Bomb('data_batch_1', pickle.dumps(batch, 4), 'whole numbers'),
    ]


ALL: dict[str, Callable[[], list[Bomb]]] = {
    'pickles': pickles,
    'weights': weights,
    'data_sets': data_sets,
}
