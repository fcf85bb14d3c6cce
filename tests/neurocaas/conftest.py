"""Hypothesis here has no deadline per example: the machine may be busy, and what is slow has tests of its own."""

from hypothesis import settings

settings.register_profile("neurocaas", deadline=None)
settings.load_profile("neurocaas")
