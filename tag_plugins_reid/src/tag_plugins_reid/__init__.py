"""Retrieval models for Tag; :mod:`tag_plugins_reid.plugin` lists what is in here."""
