"""Files: arrays and records in an archive."""
