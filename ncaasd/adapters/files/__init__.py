"""The disk: the watched tree (`tree`), the results' tree (`results`), and what they are mounted from (`mounts`)."""
