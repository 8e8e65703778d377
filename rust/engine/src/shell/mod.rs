//! (room laid out)
