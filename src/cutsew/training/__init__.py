"""The EM loop of the sewing stage: sewn batches, steps, checkpoints."""
