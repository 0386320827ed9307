"""Generated and real prompts that measure what a model has lost against its base."""
