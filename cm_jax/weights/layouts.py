"""The official names of our networks' tensors in each layout of weights.

    layout    who wrote the weights                          our network
    edm       EDM (also ECT on CIFAR-10)                     song_unet, adm_unet
    bare      the same without `model.`: CUD, LCSC           song_unet
    jcm       OpenAI consistency models on CIFAR-10 (flax)   song_unet
    edm2      EDM2 (also ECT on ImageNet)                    edm2_unet
    openai    OpenAI consistency models, LCSC, CUD           adm_unet

The same convolution, the first one, is called

    edm       model.enc.32x32_conv.weight
    bare      enc.32x32_conv.weight
    jcm       Conv_0.kernel
    edm2      unet.enc.64x64_conv.weight
    openai    input_blocks.0.0.weight
"""

import re
from collections.abc import Iterable

from cm_jax.core.tree import FIXED

Path = tuple[str, ...]
LAYOUTS = {  # layout -> our networks that may have it
    'edm': ('song_unet', 'adm_unet'),
    'bare': ('song_unet',),
    'jcm': ('song_unet',),
    'edm2': ('edm2_unet',),
    'openai': ('adm_unet',),
}
MARKERS = {  # layout -> a tensor that every network of that layout has
    'edm': 'model.map_layer0.weight',
    'bare': 'map_layer0.weight',
    'jcm': 'ResnetBlockBigGANpp_0.GroupNorm_0.scale',
    'edm2': 'unet.emb_noise.weight',
    'openai': 'time_embed.0.weight',
}
LEAVES = {
    'kernel': 'weight',
    'scale': 'weight',
    FIXED + 'freqs': 'freqs',
    FIXED + 'phases': 'phases',
}
HEADS = 'generator_list'  # CUD's heads 2 and 3, as its training states call them
OPENAI_TOP = {
    'map_layer0': 'time_embed.0',
    'map_layer1': 'time_embed.2',
    'map_label': 'label_emb',
    'out_norm': 'out.0',
    'out_conv': 'out.2',
}
OPENAI_BLOCK = {
    'norm0': 'in_layers.0',
    'conv0': 'in_layers.2',
    'affine': 'emb_layers.1',
    'norm1': 'out_layers.0',
    'conv1': 'out_layers.3',
    'skip': 'skip_connection',
}
OPENAI_ATTENTION = {'norm2': 'norm', 'qkv': 'qkv', 'proj': 'proj_out'}
JCM_TOP = {
    'map_noise': 'GaussianFourierProjection_0',
    'map_layer0': 'Dense_0',
    'map_layer1': 'Dense_1',
    'out_norm': 'GroupNorm_0',
    'out_conv': 'Conv_1',
}
JCM_BLOCK = {
    'norm0': 'GroupNorm_0',
    'conv0': 'Conv_0',
    'affine': 'Dense_0',
    'norm1': 'GroupNorm_1',
    'conv1': 'Conv_1',
    'skip': 'Conv_2',
}
JCM_ATTENTION = {'norm2': ('GroupNorm_0',), 'qkv': ('NIN_0', 'NIN_1', 'NIN_2'), 'proj': ('NIN_3',)}


def names_of(
    paths: Iterable[Path], network: str, height: int, layout: str
) -> dict[Path, tuple[str, ...]]:
    """Returns the official names of each parameter, by its path in ours.

    There is one name, or three where the layout has queries, keys and values apart. `network` is the
    name of our network and `height` that of its images.
    """
    paths = list(paths)
    if layout == 'jcm':
        return _jcm_names(paths)
    if layout == 'openai':
        return {path: (name,) for path, name in _openai_names(paths).items()}
    return {path: (_edm_name(path, network, height, layout),) for path in paths}


def _edm_name(path: Path, network: str, height: int, layout: str) -> str:
    """Returns the name of a parameter in the layouts 'edm', 'bare' and 'edm2'.

    For example: ('enc_16_block0', 'conv0', 'kernel') -> 'model.enc.16x16_block0.conv0.weight'.
    """
    *modules, leaf = path
    leaf = LEAVES.get(leaf, leaf)
    head = re.fullmatch(r'head(\d+)_(norm|conv)', modules[0]) if modules else None
    if layout == 'bare' and head:
        part = {'norm': 0, 'conv': 2}[head[2]]
        return f'{HEADS}.{int(head[1]) - 2}.block.{part}.{leaf}'
    if modules:
        top = re.sub(r'^(enc|dec)_(\d+)_', r'\1.\2x\2_', modules[0])
        if network == 'song_unet' and top in ('out_norm', 'out_conv'):
            top = f'dec.{height}x{height}_{top.replace("out", "aux")}'
        modules[0] = top
    outside = layout == 'bare' or (modules and modules[0].startswith('logvar_'))
    prefix = 'unet' if network == 'edm2_unet' else 'model'
    return '.'.join([*([] if outside else [prefix]), *modules, leaf])


def _openai_names(paths: Iterable[Path]) -> dict[Path, str]:
    """Returns the name of each parameter in the layout 'openai', by its path.

    OpenAI's 'input_blocks' are our encoder's blocks in the order they run, and 'output_blocks' are our
    decoder's. An upsampling block has no number of its own there: it is the last member of the output
    block before it.
    """
    attending = {path[0] for path in paths if 'qkv' in path}
    blocks = {}  # our name -> (the official name, the official name of its attention)
    for i, name in enumerate(_in_order({path[0] for path in paths}, 'enc')):
        blocks[name] = (f'input_blocks.{i}.0', f'input_blocks.{i}.1')
    count, members = -1, 0
    for name in _in_order({path[0] for path in paths}, 'dec'):
        if name.endswith('_in0'):
            blocks[name] = ('middle_block.0', 'middle_block.1')
        elif name.endswith('_in1'):
            blocks[name] = ('middle_block.2', '')
        elif name.endswith('_up'):
            blocks[name] = (f'output_blocks.{count}.{members}', '')
        else:
            count, members = count + 1, 2 if name in attending else 1
            blocks[name] = (f'output_blocks.{count}.0', f'output_blocks.{count}.1')
    names = {}
    for path in paths:
        top, *inner, leaf = path
        if not inner:
            module = OPENAI_TOP[top] if top in OPENAI_TOP else blocks[top][0]
        elif inner[0] in OPENAI_ATTENTION:
            module = f'{blocks[top][1]}.{OPENAI_ATTENTION[inner[0]]}'
        else:
            module = f'{blocks[top][0]}.{OPENAI_BLOCK[inner[0]]}'
        names[path] = f'{module}.{LEAVES.get(leaf, leaf)}'
    return names


def _jcm_names(paths: Iterable[Path]) -> dict[Path, tuple[str, ...]]:
    """Returns the names of each parameter in the layout 'jcm', by its path.

    flax numbers the modules of one class in the order in which they run; its blocks, attentions and
    image branches are ours in that order. What JCM's network lacks, such as classes, keeps our name.
    """
    tops = {path[0] for path in paths}
    ordered = [*_in_order(tops, 'enc'), *_in_order(tops, 'dec')]
    attending = {path[0] for path in paths if 'qkv' in path}
    running = [name for name in ordered if not name.endswith('_conv')]
    branches = [f'enc_{name.split("_")[1]}_aux_residual' for name in running if '_down' in name]
    module = dict(JCM_TOP)
    module |= {name: 'Conv_0' for name in ordered if name.endswith('_conv')}
    module |= {name: f'ResnetBlockBigGANpp_{i}' for i, name in enumerate(running)}
    module |= {name: f'Downsample_{i}.Conv2d_0' for i, name in enumerate(branches)}
    attention = {
        name: f'AttnBlockpp_{i}' for i, name in enumerate(n for n in running if n in attending)
    }
    names = {}
    for path in paths:
        top, *inner, leaf = path
        owner = module.get(top, top)
        if inner and inner[0] in JCM_ATTENTION:
            leaf = {'kernel': 'W', 'bias': 'b'}[leaf] if inner[0] != 'norm2' else leaf
            names[path] = tuple(
                f'{attention[top]}.{part}.{leaf}' for part in JCM_ATTENTION[inner[0]]
            )
        elif inner:
            names[path] = (f'{owner}.{JCM_BLOCK[inner[0]]}.{leaf}',)
        else:
            leaf = 'W' if leaf == FIXED + 'freqs' else leaf
            leaf = 'weight' if leaf == 'kernel' and top in branches else leaf
            names[path] = (f'{owner}.{leaf}',)
    return names


def _in_order(tops: set[str], side: str) -> list[str]:
    """Returns the blocks of one side, 'enc' or 'dec', in the order in which they run."""
    keyed = []
    for name in tops:
        match = re.fullmatch(rf'{side}_(\d+)_(conv|down|up|in|block)(\d*)', name)
        if match:
            res, kind, i = int(match[1]), match[2], int(match[3] or 0)
            keyed.append((-res if side == 'enc' else res, kind == 'block', i, name))
    return [name for *_, name in sorted(keyed)]
