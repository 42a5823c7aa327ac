"""Image files in folders, tables and archives: how they are laid out, and how they are read and cached."""
