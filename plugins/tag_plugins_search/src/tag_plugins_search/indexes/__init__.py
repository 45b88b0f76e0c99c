"""The components of kind ``index``."""
