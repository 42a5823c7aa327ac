"""Image files and objects as uint8 pixels, whatever their format."""
