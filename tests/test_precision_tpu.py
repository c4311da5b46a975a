"""The same on a TPU: compiled ahead of time, by the compiler of the extra `tpu`, without a TPU."""

import os
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT

QUIET = {'TPU_SKIP_MDS_QUERY': '1', 'TPU_ACCELERATOR_TYPE': 'v5litepod-4', 'TPU_WORKER_ID': '0'}
PROGRAM = """
import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from cm_jax.core.precision import PRECISIONS
from cm_jax.wiring import wire
from tests.helpers import tiny
from tests.helpers.programs import precisions

for effort in ('jax_exec_time_optimization_effort', 'jax_memory_fitting_effort'):
    jax.config.update(effort, -1.0)
place = SingleDeviceSharding(topologies.get_topology_desc('v5e:2x2', 'tpu').devices[0])
for precision in PRECISIONS:
    config = tiny.get_config('ect')
    config.model.precision = precision
    objective = wire(tiny.settings_of(config), (8, 8, 1), 10)

    def loss(params, image, label, key):
        batch = {'image': image, 'label': label}
        loss, _ = objective.objective.loss(params, (), (), batch, jax.random.key(0), jnp.int32(11))
        return loss.mean()

    shapes = (
        jax.eval_shape(objective.model.init, jax.random.key(0)),
        jax.ShapeDtypeStruct((8, 8, 8, 1), jnp.float32),
        jax.ShapeDtypeStruct((8,), jnp.int32),
        jax.ShapeDtypeStruct((), jnp.int32),
    )
    shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), shapes)
    lowered = jax.jit(jax.grad(loss)).trace(*shapes).lower(lowering_platforms=('tpu',))
    print(precision, *precisions(lowered.compile().as_text()), flush=True)
"""


@pytest.mark.slow
def test_the_products_of_a_gradient_compiled_for_a_tpu_have_the_precision_of_the_config():
    pytest.importorskip(
        'libtpu', reason='the extra tpu, with the compiler for TPUs, is not installed'
    )
    environment = os.environ | QUIET | {'JAX_PLATFORMS': 'cpu', 'TPU_WORKER_HOSTNAMES': 'localhost'}
    environment.pop('XLA_FLAGS', None)
    ended = subprocess.run(
        [sys.executable, '-c', PROGRAM], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    lines = [line.split() for line in ended.stdout.splitlines()]
    assert [line for line in lines if line[0] in ('default', 'high', 'highest')] == [
        [name, name] for name in ('default', 'high', 'highest')
    ], ended.stdout
