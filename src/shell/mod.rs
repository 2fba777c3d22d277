//! µShell: telnet, line editing, and the commands that show and steer the appliance.
//!
//! What may enter this room: the text that operators type and read. It knows the appliance only through a trait.

pub mod editor;
pub mod telnet;
