//! (room laid out; filled by its own commits)
