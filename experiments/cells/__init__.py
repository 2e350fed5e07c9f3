"""A plan's cells: what each computes, scores and stores."""
