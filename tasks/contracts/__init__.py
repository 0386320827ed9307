"""Contracts: the frozen JSON documents that steps exchange and store, one file per subject."""
