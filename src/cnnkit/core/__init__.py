"""The foundation of all rooms: errors, window arithmetic, devices and seeds, atomic files."""
