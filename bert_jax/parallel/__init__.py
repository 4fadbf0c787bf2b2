"""The device mesh, its layout, and what moves between devices."""
