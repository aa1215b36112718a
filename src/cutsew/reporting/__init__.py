"""What the report is made of: charts, photos, provenance, and the page that holds them."""
