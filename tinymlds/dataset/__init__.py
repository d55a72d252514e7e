"""Dataset folders: files, journal, sealing, reading."""
