"""Copies of instances: made, verified, worked on, swapped in, and taken away again.

`record` is what is known of a copy, one file each; `driver` what every cloud must be able to do, `podman` and `by_hand`
the drivers there are; `making` makes and verifies a copy, `work` has its working copy and opens the disk of it, `swap`
puts that in the original's place, and back. What a kill between any two steps means stands in ARCHITECTURE.md.
"""
