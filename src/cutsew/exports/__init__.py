"""A run's labels in the files of other tools."""
