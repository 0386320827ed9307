"""The steps of the DAG, one folder each, and the code that they share."""
