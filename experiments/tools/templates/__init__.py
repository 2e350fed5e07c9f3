"""What ``splitleak new`` writes: plugins that work as they are, for an author to edit."""
