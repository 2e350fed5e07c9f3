"""What cells measured: the record that they write, and what report, export and compare read."""
