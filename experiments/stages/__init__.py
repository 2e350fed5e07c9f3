"""The steps of a cell, each cached by what it depends on: data, victim, protection, features, attack."""
