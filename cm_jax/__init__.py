"""cm_jax: few-step generative models in JAX.

Where Python runs one of the commands, Ctrl-C and SIGTERM end it by one line from here on, while the
libraries are imported too (see interrupts.py). Elsewhere they do what they did before.

If this package is imported before JAX, and JAX will run on the CPU alone, the import sets one XLA
flag. It lets a library fuse reductions, which makes a training step of the small networks 1.3 times
faster. If the user has set the flag in XLA_FLAGS, it is left as it is.
"""

import os

from cm_jax import interrupts

CPU_FLAG = '--xla_cpu_experimental_ynn_fusion_type'
CPU_FLAG_VALUE = 'LIBRARY_FUSION_TYPE_REDUCE'
# The flag was tried with these first and last versions of jaxlib, and is set for no others: XLA
# aborts on a flag that it does not know.
CPU_FLAG_JAXLIB = ((0, 10), (0, 12))
ACCELERATOR_PLUGINS = ('libtpu', 'jax_cuda12_plugin', 'jax_cuda13_plugin', 'jax_rocm7_plugin')


def _set_cpu_flag() -> None:
    """Adds CPU_FLAG to XLA_FLAGS if JAX will run on the CPU alone and its XLA knows the flag."""
    import importlib.metadata  # here, behind the handling of signals: it takes a while
    import importlib.util

    flags = os.environ.get('XLA_FLAGS', '')
    platforms = os.environ.get('JAX_PLATFORMS', '')
    accelerated = any(importlib.util.find_spec(name) for name in ACCELERATOR_PLUGINS)
    if not importlib.util.find_spec('jaxlib'):
        return  # importing JAX will raise the error that says what is missing
    jaxlib = tuple(int(part) for part in importlib.metadata.version('jaxlib').split('.')[:2])
    cpu_only = platforms == 'cpu' if platforms else not accelerated
    known = CPU_FLAG_JAXLIB[0] <= jaxlib <= CPU_FLAG_JAXLIB[1]
    if cpu_only and known and CPU_FLAG not in flags:
        os.environ['XLA_FLAGS'] = f'{flags} {CPU_FLAG}={CPU_FLAG_VALUE}'.strip()


_COMMAND = interrupts.command_of_interpreter()
if _COMMAND is not None:
    interrupts.install_for(_COMMAND)
_set_cpu_flag()
