"""Data sets: where photos come from (sources), how they are read, and into which parts they are divided."""
