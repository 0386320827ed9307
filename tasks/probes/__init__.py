"""Generated and real prompts that show what a model has lost."""
