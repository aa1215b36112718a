"""Training of the student: batches of features, the EM loop, checkpoints."""
