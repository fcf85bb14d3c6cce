"""ncaasd: a folder that runs NeuroCAAS analyses."""

__version__ = "0.1.0"
