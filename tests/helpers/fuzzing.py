"""Whole files of every format that is read, and strategies that damage them."""

import gzip
import io
import json
import pathlib
import pickle
import struct
import tarfile
import zipfile
import zlib

import flax.serialization
import msgpack
import numpy as np
from hypothesis import strategies as st
from PIL import Image

from cm_jax.data.prepare import prepare
from cm_jax.metrics import moments
from cm_jax.weights.write import write_safetensors
from tests.helpers import weight_files
from tests.helpers.bombs import safetensors, stored
from tests.helpers.data_files import made_up, write_idx
from tests.helpers.weight_files import Command, Parameter, Storage, Tensor, tensor

NUMBERS = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
NUMBERS += [1 << 40, (1 << 63) - 1, (1 << 64) - 1]
FORMATS = ['>B', '<H', '>H', '<I', '>I', '<Q', '>Q']
values = weight_files.values()


@st.composite
def damaged(draw, whole: bytes) -> bytes:
    """A file with none to three of its places changed, cut out, repeated or filled with a number."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        kind = draw(st.sampled_from(['byte', 'number', 'number', 'insert', 'cut', 'repeat', 'end']))
        if kind == 'byte':
            content[place : place + 1] = bytes([draw(st.integers(0, 255))])
        elif kind == 'number':
            form, number = draw(st.sampled_from(FORMATS)), draw(st.sampled_from(NUMBERS))
            size = struct.calcsize(form)
            content[place : place + size] = struct.pack(form, number & ((1 << 8 * size) - 1))
        elif kind == 'insert':
            content[place:place] = draw(st.binary(max_size=20))
        elif kind == 'cut':
            del content[place : place + draw(st.integers(1, 30))]
        elif kind == 'repeat':
            piece = bytes(content[place : place + draw(st.integers(1, 50))])
            content[place:place] = piece * draw(st.sampled_from([1, 2, 1000]))
        else:
            del content[place:]
    return bytes(content)


# Weights

TREE = {
    'ema': {'weight': tensor(values), 'bias': Parameter(tensor(values[0, 0]))},
    'views': [Tensor(Storage(values.ravel()), 3, (2, 2), (0, 1))],
    'step': 7,
    'name': 'text',
    'array': np.arange(6.0).reshape(2, 3),
}
NET = weight_files.module('EDMPrecond', {'model.a.weight': values, 'model.freqs': values})
PIECES = [  # of pickles: operations, with what they may need around them
    *(bytes([code]) for code in pickle._Unpickler.dispatch),
    *(b'](', b'e', b'}(', b'u', b'(', b't', b'\x8f(', b'\x90', b'\x91', b'2\x86', b'2\x85', b'}'),
    *(b'K\x01', b'K\x07', b'M\xff\xff', b'J\xff\xff\xff\xff', b'X\x01\x00\x00\x00a', b'C\x04abcd'),
    *(b'q\x00', b'q\x01', b'r\xff\xff\xff\xff', b'h\x00', b'h\x01', b'\x94', b'R', b'b', b'\x81'),
    *(b'ctorch\nFloatStorage\n', b'ctorch._utils\n_rebuild_tensor_v2\n', b'ctorch\nSize\n'),
    *(b'ccollections\nOrderedDict\n', b'c_codecs\nencode\n', b'X\x06\x00\x00\x00latin1'),
    *(b'cnumpy\nndarray\n', b'cnumpy\ndtype\n', b'cnumpy.core.multiarray\nscalar\n', b'U\x02f4'),
    *(b'ctorch.nn.modules.conv\nConv2d\n', b'ctorch.storage\n_load_from_bytes\n', b'Q', b'Pa\n'),
    *(b'cos\nsystem\n', b'cbuiltins\nexec\n', b'(X\x04\x00\x00\x00true', b'ios\nsystem\n'),
]
pickles = st.one_of(
    damaged(weight_files.plain_pickle(TREE | {'net': NET})),
    damaged(weight_files.plain_pickle({'run': Command('never'), **TREE}, 2)),
    st.lists(st.sampled_from(PIECES), max_size=40).map(
        lambda ops: b'\x80\x04' + b''.join(ops) + b'.'
    ),
)
legacy = damaged(weight_files.legacy_file(TREE))


def rezipped(whole: bytes, name: str, content: bytes) -> bytes:
    """A zip with other content in one entry, and right checksums."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(file, 'w') as new:
        for entry in old.infolist():
            new.writestr(entry, content if entry.filename == name else old.read(entry))
    return file.getvalue()


ZIP = weight_files.zip_file(TREE)
torch_zips = st.one_of(
    damaged(ZIP),
    pickles.map(lambda content: rezipped(ZIP, 'weights/data.pkl', content)),
    st.binary(max_size=200).map(lambda content: rezipped(ZIP, 'weights/data/0', content)),
)


def saved(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


DTYPES = ['<f4', '>f8', '<U3', '<U0', '|O', '|b1', '<c16', '<M8[s]', '|V7', '[("a", "<f4")]']
sizes = st.lists(st.sampled_from([0, 1, 2, 3, 1 << 31, 1 << 62, -1]), max_size=4)
headers = st.builds(
    lambda dtype, shape, order: (
        f'{{"descr": {dtype if dtype[0] == "[" else repr(dtype)}, "fortran_order": {order}, '
        f'"shape": {tuple(shape)!r}, }}\n'
    ).encode(),
    st.sampled_from(DTYPES),
    sizes,
    st.booleans(),
)
arrays = st.builds(
    lambda header, data: b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header + data,
    headers,
    st.binary(max_size=64),
)
npz = st.one_of(
    damaged(saved(a=values, text='{}')),
    st.one_of(damaged(npy(values)), arrays).map(lambda content: stored('a.npy', content)),
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {},
    optional={
        'dtype': st.sampled_from(['F32', 'BF16', 'U8', 'F8', 7]) | json_values,
        'shape': sizes | json_values,
        'data_offsets': st.tuples(*2 * [st.sampled_from([0, 4, 8, -4, 1 << 62])]) | json_values,
    },
)


def whole_safetensors(folder: pathlib.Path) -> bytes:
    write_safetensors(folder / 'whole', {'a': values, 'b': values[0, 0]}, {'step': '7'})
    return (folder / 'whole').read_bytes()


def safetensors_files(folder: pathlib.Path) -> st.SearchStrategy[bytes]:
    names = st.sampled_from(['a', 'b', '__metadata__'])
    table = st.dictionaries(names, entries | json_values, max_size=3)
    made = st.builds(lambda t, d: safetensors(json.dumps(t).encode(), d), table, st.binary())
    return damaged(whole_safetensors(folder)) | made


FLAX = flax.serialization.to_bytes({'params': {'a': values, 'b': np.float32(1)}, 'step': 7})
extensions = st.builds(
    lambda code, shape, dtype, data: msgpack.ExtType(code, msgpack.packb((shape, dtype, data))),
    st.sampled_from([1, 2, 3, 127]),
    st.lists(st.integers(-1, 1 << 62), max_size=3) | st.text(max_size=2),
    st.sampled_from(['float32', 'bool', 'object', '', 7]),
    st.binary(max_size=9),
)
small_json = st.integers(0, 9) | st.text(max_size=3) | st.lists(st.integers(0, 9), max_size=3)
chunks = st.builds(
    lambda shape, parts: {'__msgpack_chunked_array__': True, 'shape': shape, 'chunks': parts},
    st.dictionaries(st.sampled_from('01'), small_json),
    st.dictionaries(st.sampled_from('01'), extensions | small_json),
)
flax_files = damaged(FLAX) | st.dictionaries(
    st.text(max_size=3), extensions | chunks | small_json, max_size=3
).map(msgpack.packb)


# Reference statistics

RECORD = {
    'extractor': {'name': 'made_up', 'checksum': 'c0ffee', 'resize': 'none'},
    'image_shape': [4, 4, 3],
    'statistics': moments.checksum(37, np.zeros(4), np.eye(4)),
    'source': 'made',
    'split': 'train',
    'count': 37,
    'checksum': 'f00d',
    'rank_deficient': False,
}
records = st.one_of(
    json_values,
    st.builds(lambda key, value: RECORD | {key: value}, st.sampled_from([*RECORD]), json_values),
)
numbers = st.floats() | st.sampled_from([1e308, -1e308, 5e-324])
KINDS = ['f4', 'f8', 'f8', 'f2', 'i8', 'u1', 'u1', 'c16', 'U3']
SHAPES = [
    (4,),
    (5,),
    (4, 4),
    (4, 5),
    (37, 4),
    (3, 4, 4, 3),
    (3, 0, 4, 3),
    (2, 4, 4, 2),
    (3, 1, 1, 1),
]


@st.composite
def references(draw) -> bytes:
    """A file of mu and sigma, and sometimes of more, in which some arrays are replaced."""
    arrays = {'mu': np.zeros(4), 'sigma': np.eye(4), 'record': json.dumps(draw(records))}
    arrays |= {'arr_0': np.zeros((3, 4, 4, 3), np.uint8), 'features': np.zeros((37, 4))}
    for name in draw(st.sets(st.sampled_from([*arrays, 'record', 'record']), max_size=4)):
        del arrays[name]
    for name in draw(st.sets(st.sampled_from([*arrays] or ['mu']), max_size=2)):
        kind, shape = draw(st.sampled_from(KINDS)), draw(st.sampled_from(SHAPES))
        with np.errstate(all='ignore'):
            arrays[name] = np.nan_to_num(np.full(shape, draw(numbers))).astype(kind)
    return saved(**arrays)


statistics = damaged(
    pickle.dumps({'fd_made_up': {'mu': np.zeros(4), 'sigma': np.eye(4)}, 'fid': {'mu': 1}}, 4)
)


# Data sets

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)


def image(kind: str, **settings) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind, **settings)
    return file.getvalue()


EXIF = Image.Exif()
EXIF[0x0112] = 6  # turned
IMAGES = {
    'a.png': image('PNG', exif=EXIF),
    'a.jpg': image('JPEG', exif=EXIF),
    'a.bmp': image('BMP'),
    'a.ppm': image('PPM'),
    'a.tif': image('TIFF', compression='tiff_deflate'),
    'a.webp': image('WEBP'),
}


def checked(content: bytes) -> bytes:
    """A PNG file with right checksums, as far as its chunks go."""
    out, place = content[:8], 8
    while place + 12 <= len(content):
        (length,) = struct.unpack_from('>I', content, place)
        chunk = content[place + 4 : place + 8 + length]
        out += content[place : place + 4] + chunk + struct.pack('>I', zlib.crc32(chunk))
        place += 12 + length
    return out


images = st.sampled_from([*IMAGES]).flatmap(
    lambda name: st.tuples(
        st.just(name),
        damaged(IMAGES[name]).map(checked if name == 'a.png' else lambda content: content),
    )
)
names = (
    st.lists(
        st.sampled_from(
            ['train', 'a', '..', '', '.', 'b.png', 'a.png', 'C:', 'a\x00b', '\ud800', 'x' * 300]
        ),
        min_size=1,
        max_size=4,
    )
    .map('/'.join)
    .filter(bool)
)


def zip_with(entries: list[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name.encode('utf-8', 'replace').decode(), content)
    return file.getvalue()


named = st.tuples(names, st.sampled_from([IMAGES['a.png'], b'']))
image_zips = damaged(
    zip_with([('a/1.png', IMAGES['a.png']), ('b/2.bmp', IMAGES['a.bmp'])])
) | st.lists(named, min_size=1, max_size=3, unique_by=lambda item: item[0]).map(zip_with)

IDX = struct.pack('>4B3I', 0, 0, 8, 3, 2, 4, 3) + bytes(range(24))
LABELS = struct.pack('>4BI', 0, 0, 8, 1, 2) + b'\x01\x00'
idx_files = st.tuples(damaged(IDX), damaged(LABELS) | st.just(LABELS), st.booleans()).map(
    lambda parts: (gzip.compress(parts[0]) if parts[2] else parts[0], parts[1])
) | damaged(gzip.compress(IDX)).map(lambda content: (content, LABELS))

BATCH = pickle.dumps({'data': np.zeros((1, 3072), np.uint8), 'labels': [3]}, 4)


def tar(content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode='w') as archive:
        for name in (*(f'data_batch_{n}' for n in range(1, 6)), 'test_batch'):
            member = tarfile.TarInfo(f'cifar-10-batches-py/{name}')
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


cifar = st.one_of(
    damaged(BATCH).map(tar),
    pickles.map(tar),
    damaged(tar(BATCH)[:9000]).map(lambda content: gzip.compress(content, 1)),
    damaged(gzip.compress(tar(BATCH))),
)


def data_sets(folder: pathlib.Path) -> st.SearchStrategy[tuple[pathlib.Path, bytes]]:
    """A file of a data set that is prepared below `folder`, and what is in it instead."""
    write_idx(folder / 'raw', {'train': made_up(5, (7, 5))})
    home = prepare('small', str(folder / 'raw'), str(folder)).folder
    whole = {path: path.read_bytes() for path in home.iterdir()}
    return st.sampled_from(sorted(whole)).flatmap(
        lambda path: st.tuples(st.just(path), damaged(whole[path]))
    )
