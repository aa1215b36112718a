"""What the audit tells: where each label of a finished run comes from. It reads, and writes nothing into the run."""
