"""From a coding plan to packets: one job per frame, its candidates, and the manager of their order."""
