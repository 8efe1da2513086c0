"""The practice incident: containers, faults, the scenario's clock, the score."""
