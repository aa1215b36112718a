"""Networks and weights: teachers, backbones and the student."""
