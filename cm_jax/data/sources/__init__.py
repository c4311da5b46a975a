"""The data sources: each file is one, with `open_source(split, **settings) -> Source`."""
