"""The fault-test harness: real processes and databases, faults, histories."""
