"""How good samples are: rounding, moments of features, distances, and the record of a score."""
