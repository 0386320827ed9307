"""What several rooms need to measure a model: rows of tokens, block-by-block runs, likelihoods."""
