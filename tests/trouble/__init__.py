"""Bad, odd and hostile inputs, each with what is to become of it. `python -m trouble` in tests/ prints them all."""
