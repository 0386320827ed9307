"""Build and write the results of each kind of run: contracts, pages, files, tags, events."""
