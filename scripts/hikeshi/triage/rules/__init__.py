"""One file a rule: `find(evidence of one host)` yields findings. A rule names a known fault and its remedy."""
