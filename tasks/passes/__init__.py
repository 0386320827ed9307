"""Rows of tokens through a model: in batches, block by block, and what is read on the way."""
