"""The judge: the only place where the true image and its reconstruction meet."""
