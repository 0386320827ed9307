"""What strategies fit their tensors with."""
