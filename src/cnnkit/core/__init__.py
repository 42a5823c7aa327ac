"""The foundation of all packages: errors, window arithmetic, devices and seeds, atomic files."""
