"""What stages leave on disk: Zarr groups, Parquet and CSV tables, written atomically."""
