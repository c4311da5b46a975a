"""LCSC: linear combination of saved checkpoints, searched (arXiv 2404.02241)."""
