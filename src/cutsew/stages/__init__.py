"""One module per stage: opens inputs, calls one numeric function, writes one artifact and its record."""
