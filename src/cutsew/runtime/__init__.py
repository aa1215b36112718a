"""How code is run: devices, batches, processes and imports. Nothing about the method."""
