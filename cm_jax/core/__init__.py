"""Pure mathematics: JAX and types only; no flax, no config, no I/O."""
