"""The ground floor: networks, cuts, data, tensor types, the one training loop and seeding."""
