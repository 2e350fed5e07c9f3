"""What victims are for: one file per kind of task, each a measure of its own."""
