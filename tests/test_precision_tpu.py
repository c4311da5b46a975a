"""The same for TPUs: compiled ahead of time, by the compiler of the extra `tpu`, without a TPU."""

import os
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT

# The last one: whatever else on this machine has loaded the compiler.
QUIET = {
    'TPU_SKIP_MDS_QUERY': '1',
    'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
    'TPU_WORKER_ID': '0',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
}
PROGRAM = """
import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from cm_jax import sharding
from cm_jax.core.precision import PRECISIONS
from tests.helpers import tiny
from tests.helpers.programs import lowered_step, precisions

for effort in ('jax_exec_time_optimization_effort', 'jax_memory_fitting_effort'):
    jax.config.update(effort, -1.0)
chips = topologies.get_topology_desc('v5e:2x2', 'tpu').devices
sharding.make_mesh = lambda: Mesh(chips, (sharding.AXIS,))
for precision in PRECISIONS:
    config = tiny.get_config('ect')
    config.model.update({'num_blocks': 1, 'precision': precision})
    print(precision, *precisions(lowered_step(config, 'run').compile().as_text()), flush=True)
"""


@pytest.mark.slow
def test_the_products_of_a_step_compiled_for_four_chips_have_the_precision_of_the_config():
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
