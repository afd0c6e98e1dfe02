"""Several trainings as one experiment: which run, in what order, and whether what an earlier call left still counts."""
