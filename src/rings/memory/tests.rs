//! The in-memory devices against their limits, against late and disorderly other sides, and against simple models.

mod disk;
mod net;
mod wakeups;
