"""Packaging of cm_jax; Python 3.11 gets JAX 0.10, 3.12 and later JAX 0.12."""

import pathlib

import setuptools

HERE = pathlib.Path(__file__).parent

setuptools.setup(
    name='cm_jax',
    version='0.1.0',
    description='Few-step generative models in JAX: train, tune, distil and improve them.',
    long_description=(HERE / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    packages=setuptools.find_packages(include=['cm_jax', 'cm_jax.*']),
    package_data={'cm_jax': ['models/lenet_weights/*.npz', 'models/lenet_weights/*.json']},
    python_requires='>=3.11',
    install_requires=[
        'absl-py>=2.1',
        'chex>=0.1.91',
        'cmaes>=0.13,<0.14',
        'etils[epath]>=1.10',
        'flax>=0.12.8,<0.13',
        'importlib_resources',  # tensorflow-datasets 4.9.10 imports it without declaring it
        'jax>=0.10.2,<0.13',
        'matplotlib>=3.8',
        'ml-collections>=1.1',
        'msgpack>=1.0',  # the format of flax's checkpoints
        'numpy>=2.0',
        'optax>=0.2.8',
        'orbax-checkpoint>=0.12.8,<0.13',
        'pillow>=10',
        'scikit-learn>=1.5',  # the embedded digits
        'tensorflow-datasets>=4.9.10',
        'threadpoolctl>=3.5',
        'tqdm>=4.66',
        'xxhash>=3.4',  # checksums of checkpoints; those of zlib take six times as long
    ],
    extras_require={
        'test': [
            'hypothesis>=6.100',
            'mypy>=2.4,<3',
            'pytest>=8',
            'pytest-xdist>=3.6',
            'ruff>=0.12,<0.18',
            'scipy>=1.15',
            'tensorboardX>=2.6',
        ],
        'notebooks': ['jupyterlab', 'nbclient', 'ipykernel', 'pandas', 'treescope'],
        'cuda': ['jax[cuda13]'],
        'tpu': ['jax[tpu]', 'etils[epath-gcs]>=1.10'],
    },
)
