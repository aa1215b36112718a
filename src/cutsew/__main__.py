"""`python -m cutsew` is `cutsew`."""

from cutsew.cli import main

main()
