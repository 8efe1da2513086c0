"""Leads an operator through the recovery of a small web shop."""
