"""What is coded, as values: architecture, integers, probability tables, networks, coding plan."""
