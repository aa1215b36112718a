"""The method: pure functions and modules on arrays and tensors. No files, no settings object, no globals."""
