"""finetune: train converted checkpoints (healing), and bases before layers are removed."""
