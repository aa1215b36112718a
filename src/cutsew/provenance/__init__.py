"""Records of how each artefact was made, and what is done with them: verify, explain, find what changed."""
