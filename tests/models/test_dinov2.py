"""DINOv2: the network in NumPy, the resize of Pillow, names and shapes of ViT-L/14, and its files."""

import functools
import hashlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from cm_jax.core import tree
from cm_jax.errors import UserError
from cm_jax.metrics import named
from cm_jax.metrics.protocol import extractor_id
from cm_jax.models import dinov2
from cm_jax.weights import dinov2 as files
from cm_jax.weights.write import write_safetensors
from tests.helpers import weight_files

TINY = dinov2.Sizes(dim=12, depth=2, heads=3, patch=4, side=16, grid=5, mlp=2)


def made_up(sizes=TINY, seed=0):
    """A state dict under the official names, with the token that is not read."""
    rng = np.random.default_rng(seed)
    state = {name: rng.normal(0, 0.3, s) for name, s in files.official_shapes(sizes).items()}
    state['mask_token'] = np.zeros((1, sizes.dim))
    return {name: value.astype(np.float32) for name, value in state.items()}


@functools.cache
def state():
    return made_up()


# The network


def pillow(images, side):
    """uint8 [B,H,W,C] -> the same, resized one by one as dgm-eval does."""
    size = (side, side)
    resized = [
        np.asarray(PIL.Image.fromarray(channel).resize(size, PIL.Image.Resampling.BICUBIC))
        for image in images
        for channel in np.moveaxis(image, -1, 0)
    ]
    return np.moveaxis(np.reshape(resized, (*images.shape[::3], side, side)), 1, -1)


def keys_075(x):
    """The cubic of PyTorch's bicubic interpolation, as in Keys 1981."""
    x, a = abs(x), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def numpy_positions(positions, grid, n):
    """[1 + grid^2, d] -> [1 + n^2, d], tap by tap: source (i + 1/2) / scale - 1/2, of scale
    (n + 0.1) / grid, with the edge repeated."""
    table = positions[1:].reshape(grid, grid, -1)
    found = np.zeros((n, n, table.shape[-1]))
    for i in range(n):
        for j in range(n):
            y, x = ((k + 0.5) / ((n + 0.1) / grid) - 0.5 for k in (i, j))
            for p in range(math.floor(y) - 1, math.floor(y) + 3):
                for q in range(math.floor(x) - 1, math.floor(x) + 3):
                    value = table[min(max(p, 0), grid - 1), min(max(q, 0), grid - 1)]
                    found[i, j] += keys_075(y - p) * keys_075(x - q) * value
    return np.concatenate([positions[:1], found.reshape(n * n, -1)])


def numpy_norm(x, state, name):
    centred = x - x.mean(-1, keepdims=True)
    x = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return x * state[f'{name}.weight'] + state[f'{name}.bias']


def numpy_linear(x, state, name):
    return x @ state[f'{name}.weight'].T + state[f'{name}.bias']


def numpy_attention(x, state, name, heads):
    """One head at a time."""
    dim = x.shape[-1] // heads
    q, k, v = np.split(numpy_linear(x, state, f'{name}.qkv'), 3, axis=-1)
    found = []
    for head in range(heads):
        part = slice(head * dim, (head + 1) * dim)
        scores = np.exp(q[:, part] @ k[:, part].T / math.sqrt(dim))
        found.append(scores / scores.sum(-1, keepdims=True) @ v[:, part])
    return numpy_linear(np.concatenate(found, -1), state, f'{name}.proj')


def numpy_features(image, state, s):
    """uint8 [H,W,3] -> [dim], in float64."""
    x = (pillow(image[None], s.side)[0] / 255 - dinov2.MEAN) / dinov2.STD
    n, p = s.side // s.patch, s.patch
    patches = x.reshape(n, p, n, p, 3).transpose(0, 2, 4, 1, 3).reshape(n * n, -1)
    kernel = state['patch_embed.proj.weight'].reshape(s.dim, -1)
    x = patches @ kernel.T + state['patch_embed.proj.bias']
    x = np.concatenate([state['cls_token'][0], x])
    x = x + numpy_positions(state['pos_embed'][0], s.grid, n)
    for i in range(s.depth):
        name = f'blocks.{i}'
        found = numpy_attention(
            numpy_norm(x, state, f'{name}.norm1'), state, f'{name}.attn', s.heads
        )
        x = x + state[f'{name}.ls1.gamma'] * found
        hidden = numpy_linear(numpy_norm(x, state, f'{name}.norm2'), state, f'{name}.mlp.fc1')
        hidden = hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2))) / 2
        x = x + state[f'{name}.ls2.gamma'] * numpy_linear(hidden, state, f'{name}.mlp.fc2')
    return numpy_norm(x, state, 'norm')[0]


@pytest.mark.parametrize('shape', [(8, 8), (23, 23)])
def test_features_are_those_of_numpy(shape):
    images = np.random.default_rng(1).integers(0, 256, (3, *shape, 3), np.uint8)
    params = files.to_params(state(), TINY)
    found = jax.jit(functools.partial(dinov2.features, sizes=TINY))(params, images / 127.5 - 1)
    wide = {name: value.astype(np.float64) for name, value in state().items()}
    wanted = np.stack([numpy_features(image, wide, TINY) for image in images])
    assert found.shape == (3, 12) and found.dtype == jnp.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    assert np.abs(wanted[0] - wanted[1]).max() > 0.01


def test_positions_of_the_own_grid_are_left_alone_and_constants_are_kept():
    same = TINY._replace(grid=4)
    positions = np.random.default_rng(0).normal(size=(1, 17, 12))
    np.testing.assert_array_equal(files.resized_positions(positions, same), positions)
    np.testing.assert_allclose(files.positions_matrix(37, 16).sum(1), 1, rtol=1e-12)
    np.testing.assert_array_equal(files.positions_matrix(37, 16) != 0, _four_taps(37, 16))


def _four_taps(grid, n):
    """Where the weights of an interpolation without antialiasing are."""
    at = np.floor((np.arange(n)[:, None] + 0.5) * grid / (n + 0.1) - 0.5)
    taps = np.arange(grid)[None]
    return (taps >= at - 1) & (taps <= at + 2)


# The input


@pytest.mark.parametrize(
    'shape', [(32, 32, 3), (64, 64, 1), (8, 8, 1), (224, 224, 3), (300, 300, 3)]
)
def test_resize_is_that_of_pillow(shape):
    """But for a byte where the sum is half-way, about one in 10,000."""
    images = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    difference = np.abs(np.asarray(dinov2.resize(images, 224)) - pillow(images, 224))
    assert difference.max() <= 1 and np.mean(difference > 0) < 1e-3


def test_input_is_imagenets_and_grey_is_three_channels():
    ends = jnp.stack([jnp.full((4, 4, 1), value) for value in (-1.0, 1.0)])
    found = dinov2.to_input(ends, TINY)
    assert found.shape == (2, 16, 16, 3)
    for level, value in enumerate(found):
        wanted = (level - np.array(dinov2.MEAN)) / np.array(dinov2.STD)
        np.testing.assert_allclose(value, np.broadcast_to(wanted, value.shape), rtol=1e-5)
    with pytest.raises(UserError, match='images with 2 channels; legal: 1, 3'):
        dinov2.to_input(jnp.zeros((1, 8, 8, 2)))


# ViT-L/14 and its file


def test_names_and_shapes_are_those_of_vit_l14():
    shapes = files.official_shapes()
    assert len(shapes) == 342 and shapes['pos_embed'] == (1, 1370, 1024)
    assert shapes['patch_embed.proj.weight'] == (1024, 3, 14, 14)
    assert shapes['blocks.23.attn.qkv.weight'] == (3072, 1024)
    assert shapes['blocks.0.mlp.fc1.weight'] == (4096, 1024)
    assert shapes['blocks.7.ls2.gamma'] == shapes['norm.bias'] == (1024,)
    with_mask = sum(math.prod(shape) for shape in shapes.values()) + 1024
    assert with_mask == 304_368_640
    ours = tree.flatten(dinov2.shapes())
    fewer_positions = (1370 - 257) * 1024
    assert (
        sum(math.prod(leaf.shape) for leaf in ours.values()) == with_mask - 1024 - fewer_positions
    )


def test_program_is_float32_and_has_no_weights_in_it():
    x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.bfloat16)
    program = jax.jit(functools.partial(dinov2.features, sizes=TINY)).lower(dinov2.shapes(TINY), x)
    assert program.out_info.shape == (1, 12) and program.out_info.dtype == jnp.float32
    lines = program.as_text().splitlines()
    products = [line for line in lines if 'dot_general' in line or 'stablehlo.convolution' in line]
    assert len(products) > 12 and all('HIGHEST' in line for line in products)


def write(path, state):
    if path.suffix == '.npz':
        np.savez(path, **state)
    elif path.suffix == '.safetensors':
        write_safetensors(path, state, {})
    else:
        root = {name: weight_files.tensor(value) for name, value in state.items()}
        path.write_bytes(weight_files.WRITERS[path.suffix](root))
    return path


@pytest.mark.parametrize('suffix', ['.pth', '.pt', '.safetensors', '.npz'])
def test_files_give_the_params_of_the_state(suffix, tmp_path):
    path = write(tmp_path / f'weights{suffix}', state())
    extractor = files.load(path, TINY)
    assert (extractor.name, extractor.score, extractor.dim) == ('dinov2_vitl14', 'fd_dinov2', 12)
    assert extractor.checksum == hashlib.sha256(path.read_bytes()).hexdigest()
    assert 'Pillow' in extractor_id(extractor)['resize']
    shapes = jax.tree.map(lambda leaf: leaf.shape, dinov2.shapes(TINY))
    assert jax.tree.map(np.shape, extractor.params) == shapes
    jax.tree.map(np.testing.assert_array_equal, extractor.params, files.to_params(state(), TINY))


def test_metrics_are_named_after_it_and_it_has_no_inception_score(tmp_path):
    extractor = files.load(write(tmp_path / 'weights.npz', state()), TINY)
    assert list(named.names(extractor)) == ['fd_dinov2', 'kd_dinov2', 'pr_dinov2']
    with pytest.raises(UserError, match=r"'is_dinov2'.*legal: fd_dinov2, kd_dinov2, pr_dinov2"):
        named.check(extractor, ['is_dinov2'], 100, 100)


def refused(message, path, sizes=TINY):
    with pytest.raises(UserError, match=message) as raised:
        files.load(path, sizes)
    assert '\n' not in str(raised.value)


def test_wrong_files_are_refused(tmp_path):
    refused('no weights file .*none.pth', tmp_path / 'none.pth')
    refused(r"needs the file of its weights \(dinov2_vitl14_pretrain.pth .*, got ''", '')
    path = write(tmp_path / 'weights.pth', state())
    whole = path.read_bytes()
    refused('do not fit DINOv2 of width 1024: .*of the wrong shape', path, dinov2.VIT_L14)
    path.write_bytes(whole[: len(whole) // 2])
    refused('is truncated or damaged', path)
    other = write(tmp_path / 'other.npz', {'Conv2d_1a_3x3.conv.weight': np.zeros((32, 3, 3, 3))})
    refused('other.npz: the weights do not fit DINOv2 .* missing', other)


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'norm.bias': None}, '1 missing: norm.bias'),
        ({'register_tokens': np.zeros((1, 4, 12))}, '1 unexpected: register_tokens'),
        ({'pos_embed': np.zeros((1, 17, 12))}, 'pos_embed is 1x17x12, not 1x26x12'),
        ({'blocks.1.ls1.gamma': np.full(12, np.nan)}, 'has values that are not finite'),
    ],
)
def test_wrong_tensors_are_named(changes, message):
    changed = {name: value for name, value in (state() | changes).items() if value is not None}
    with pytest.raises(UserError, match=message):
        files.to_params(changed, TINY)
