//! The console: Xen's where Xen runs us, and the first serial port elsewhere.

use core::fmt;

use super::hypervisor::Hypervisor;
use super::serial;
use super::xen::{self, hypercall};

/// Where text goes; a new line gets its carriage return.
#[derive(Clone, Copy, Debug)]
pub enum Console {
    /// To the console.
    Usual,
    /// To everything that somebody may look at.
    Everywhere,
}

impl Console {
    /// Finds it. Nothing can be written before.
    pub fn initialise(hypervisor: Hypervisor) {
        match hypervisor {
            Hypervisor::Xen => hypercall::initialise(),
            _ => serial::initialise(),
        }
    }
}

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match (hypercall::is_xen(), self) {
            (false, _) => serial::write(text),
            (true, Self::Usual) => xen::console::write(text),
            (true, Self::Everywhere) => xen::console::write_everywhere(text),
        }
        Ok(())
    }
}
