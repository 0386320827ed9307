"""Out of the project: a checkpoint in a form that serving engines take, and what a checkpoint is.

Import from the modules: transformers_folder, stock, gguf, inspection.
"""
