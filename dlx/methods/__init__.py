"""Several trainings with one answer: one file per method."""
