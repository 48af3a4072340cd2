"""Visual encoders that are mixed, each in its own file; `registry.py` has their names."""
