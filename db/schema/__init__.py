"""The statements of each migration, as they were when it was new."""
