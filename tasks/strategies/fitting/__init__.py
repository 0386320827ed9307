"""Methods and data for fitting a strategy's tensors."""
