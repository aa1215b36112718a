"""What stages leave on disk: labelled Zarrs written chunk by chunk, tables, and a record beside each."""
