"""The top floor: composes victims, defences and attacks into experiments, and judges them."""
