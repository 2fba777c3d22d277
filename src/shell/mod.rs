//! µShell: telnet, line editing, and the commands that show and steer the appliance.
//!
//! What may enter this room: the text that operators type and read. It knows the appliance through [`Machine`] alone, so that
//! every world gives it what it has.

mod command;
mod commands;
mod editor;
mod machine;
mod sessions;
mod telnet;
mod text;
mod unattended;

pub use command::{Command, Output, Step};
pub use machine::{BlockInfo, Context, InterfaceInfo, Machine, MountState, Person, PoolInfo, RingInfo};
pub use sessions::Shell;
