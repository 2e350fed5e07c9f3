"""What is measured of one photo."""
