"""Official weights in and out: safe readers and writers of weight files, names and layouts."""
