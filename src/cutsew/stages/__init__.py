"""One module per stage: opens inputs, calls one numeric function, writes one artefact and its record."""
