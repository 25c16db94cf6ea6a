"""The values that are coded: architecture, integers, probability tables, networks, coding plan."""
