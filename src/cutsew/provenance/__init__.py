"""Records of how each artifact was made, and what is done with them: verify, explain, find what changed."""
