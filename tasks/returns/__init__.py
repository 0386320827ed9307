"""Cost and return of a conversion."""
