"""Evidence → findings → plan. All pure: no host, no clock, no chance."""
