"""Prepare a run of a flow: check its recipe, start servers, compute the inputs of its steps."""
