"""What every room stands on: errors, window arithmetic, devices and seeds, atomic files."""
