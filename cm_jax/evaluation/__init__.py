"""The parts of `evaluate`: scores and their references, curves, pictures, straightness."""
