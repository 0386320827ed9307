"""What steps hand to each other: frozen JSON documents, one file per subject."""
