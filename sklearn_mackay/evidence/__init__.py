"""From one solution to the next variances."""
