"""Jobs: what one is, where and in what order they run, and whether what an earlier call left still counts."""
