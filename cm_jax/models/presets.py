"""The architectures of the papers' networks by name, with the images and classes they are made for.

    name                       parameters     weights
    ddpmpp_cifar10             55,733,891     EDM CIFAR-10, unconditional, VP
    ddpmpp_cifar10_cond        55,735,299     EDM CIFAR-10, class-conditional, VP
    ncsnpp_cifar10             56,397,827     EDM CIFAR-10, unconditional, VE
    ncsnpp_cifar10_cond        56,400,643     EDM CIFAR-10, class-conditional, VE
    ncsnpp_deep_cifar10        97,610,499     none public: iCT-deep
    adm_imagenet64             295,899,267    EDM ImageNet-64
    edm2_imagenet64_xs         124,710,949    EDM2
    edm2_imagenet64_{s..xl}    280,209,381 / 497,803,173 / 777,492,325 / 1,119,276,837    EDM2
    cm_cifar10                 56,395,523     OpenAI consistency models in JAX, and LCSC, CIFAR-10
    cm_imagenet64              295,899,267    OpenAI consistency models, and LCSC, ImageNet-64
    cm_lsun256                 526,304,771    OpenAI consistency models, LSUN Bedroom and Cat
    cud_mnist                  2,155,201      Catch-Up Distillation, MNIST
    cud_cifar10                55,732,739     Catch-Up Distillation, CIFAR-10
    cud_imagenet64             295,899,267    Catch-Up Distillation, ImageNet-64

The names `cm_...` also take OpenAI's diffusion teachers, whose files are called edm_.... The
students of Catch-Up Distillation's one-step stage, which have no skip scaling, are
`cud_mnist_one_step` and `cud_cifar10_one_step`.

Settings that belong to a training run, such as dropout and precision, are not here: a config adds them.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Preset(NamedTuple):
    """One architecture, with the form of its images and of its published weights.

    `settings` is the `model` section of a config. `image_shape` is (H, W, C). `num_classes` is 0 for
    an unconditional network. `layout` says how its official weight files name their tensors: one of
    `weights.layouts.LAYOUTS`. `trained_as` is what the network was trained as: 'diffusion',
    'consistency' or 'flow'.
    """

    settings: Mapping[str, Any]
    image_shape: tuple[int, int, int]
    num_classes: int
    layout: str
    trained_as: str = 'diffusion'


CIFAR10 = {'channels': 128, 'channel_mult': (2, 2, 2), 'num_blocks': 4, 'attn_resolutions': (16,)}
DDPMPP = {'name': 'song_unet', **CIFAR10, 'augment_dim': 9}
NCSNPP = DDPMPP | {
    'embedding': 'fourier',
    'encoder': 'residual',
    'resample_filter': (1, 3, 3, 1),
    'channel_mult_noise': 2,
}
ADM = {
    'name': 'adm_unet',
    'channels': 192,
    'channel_mult': (1, 2, 3, 4),
    'num_blocks': 3,
    'attn_resolutions': (32, 16, 8),
}
LSUN = {
    'channels': 256,
    'channel_mult': (1, 1, 2, 2, 4, 4),
    'num_blocks': 2,
    'attn_resolutions': (32, 16, 8),
    'scale_shift': False,
}
CUD_MNIST = {'name': 'song_unet', 'channels': 32, 'channel_mult': (2, 2, 2), 'num_blocks': 2}
CUD_MNIST |= {'attn_resolutions': ()}  # 16 in the paper's code, a height that images of 28x28 lack
SKIP_SCALING = {'skip_scaling': 0.75}  # CUD's phi
OPENAI = {'noise_scale': 1000.0}  # OpenAI's noise input is 250 ln t; EDM's scalings give ln(t)/4


def _cifar10(settings: Mapping[str, Any], num_classes: int) -> Preset:
    """Returns the preset of a network for CIFAR-10 with EDM's layout."""
    return Preset(settings=settings, image_shape=(32, 32, 3), num_classes=num_classes, layout='edm')


def _cud(settings: Mapping[str, Any], size: int, channels: int) -> Preset:
    """Returns the preset of an unconditional network of Catch-Up Distillation."""
    shape = (size, size, channels)
    return Preset(
        settings=settings, image_shape=shape, num_classes=0, layout='bare', trained_as='flow'
    )


def _edm2(channels: int) -> Preset:
    """Returns the preset of an EDM2 network for ImageNet-64, of one of the paper's widths."""
    sizes = {'channels': channels, 'channel_mult': (1, 2, 3, 4), 'num_blocks': 3}
    settings = {'name': 'edm2_unet', **sizes, 'attn_resolutions': (16, 8)}
    return Preset(settings=settings, image_shape=(64, 64, 3), num_classes=1000, layout='edm2')


PRESETS = {
    'ddpmpp_cifar10': _cifar10(DDPMPP, num_classes=0),
    'ddpmpp_cifar10_cond': _cifar10(DDPMPP, num_classes=10),
    'ncsnpp_cifar10': _cifar10(NCSNPP, num_classes=0),
    'ncsnpp_cifar10_cond': _cifar10(NCSNPP, num_classes=10),
    'ncsnpp_deep_cifar10': _cifar10(
        NCSNPP | {'num_blocks': 8, 'augment_dim': 0, 'embedding_scale': 0.02}, num_classes=0
    ),
    'adm_imagenet64': Preset(settings=ADM, image_shape=(64, 64, 3), num_classes=1000, layout='edm'),
    'edm2_imagenet64_xs': _edm2(128),
    'edm2_imagenet64_s': _edm2(192),
    'edm2_imagenet64_m': _edm2(256),
    'edm2_imagenet64_l': _edm2(320),
    'edm2_imagenet64_xl': _edm2(384),
    'cm_cifar10': Preset(
        settings=NCSNPP | {'augment_dim': 0},
        image_shape=(32, 32, 3),
        num_classes=0,
        layout='jcm',
        trained_as='consistency',
    ),
    'cm_imagenet64': Preset(
        settings=ADM | OPENAI,
        image_shape=(64, 64, 3),
        num_classes=1000,
        layout='openai',
        trained_as='consistency',
    ),
    'cm_lsun256': Preset(
        settings=ADM | LSUN | OPENAI,
        image_shape=(256, 256, 3),
        num_classes=0,
        layout='openai',
        trained_as='consistency',
    ),
    'cud_mnist': _cud(CUD_MNIST | SKIP_SCALING, size=28, channels=1),
    'cud_mnist_one_step': _cud(CUD_MNIST, size=28, channels=1),
    'cud_cifar10': _cud(DDPMPP | {'augment_dim': 0} | SKIP_SCALING, size=32, channels=3),
    'cud_cifar10_one_step': _cud(DDPMPP | {'augment_dim': 0}, size=32, channels=3),
    'cud_imagenet64': Preset(
        settings=ADM | SKIP_SCALING,
        image_shape=(64, 64, 3),
        num_classes=1000,
        layout='openai',
        trained_as='flow',
    ),
}
