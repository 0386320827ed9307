"""Forward passes over rows of tokens: batching, layer-by-layer passes, fitting, likelihood."""
