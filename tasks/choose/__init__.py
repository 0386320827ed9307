"""choose: turn a profile into a plan that gives every layer a strategy and a reason."""
