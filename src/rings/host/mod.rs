//! Devices on an operating system: image files and served folders.
