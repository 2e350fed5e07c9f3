"""How a network is taken apart: by symbolic tracing, by torch.export, or by running it up to a module."""
