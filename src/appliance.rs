//! The event loop that joins the rooms.
