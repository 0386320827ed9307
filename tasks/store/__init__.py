"""The store for models, checkpoints and results: a local folder or an S3 prefix."""
