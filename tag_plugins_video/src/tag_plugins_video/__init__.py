"""Video models for Tag; :mod:`tag_plugins_video.plugin` lists what is in here."""
