"""Measures of the quality of samples: rounding, moments of features, distances, records of scores."""
