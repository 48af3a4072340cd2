"""The visual cache: features of many pictures on disk, their nearest neighbours, and what these change."""
