"""What the report is made of: charts, images, provenance, and the page that holds them."""
