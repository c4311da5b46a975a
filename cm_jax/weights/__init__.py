"""Official weights: safe readers and writers of weight files, and translation of names and layouts."""
