"""The parts of `train`: its setup, the one train step, optimisers, weights of other runs."""
