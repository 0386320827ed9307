"""An accepted checkpoint -> a version in the model registry."""
