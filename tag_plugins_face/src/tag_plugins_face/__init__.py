"""Face detection for Tag; :mod:`tag_plugins_face.plugin` lists what is in here."""
