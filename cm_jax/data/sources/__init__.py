"""The data sources. Each file is one, with a function `open_source(split, **settings) -> Source`."""
