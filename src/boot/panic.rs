//! A panic of the kernel: says where and why, and stops with a failing status.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use super::console;
use super::machine::power;

/// Reports a panic on the console and stops.
pub fn panic(info: &PanicInfo<'_>) -> ! {
    static PANICKING: AtomicBool = AtomicBool::new(false);
    // A panic while one is reported has nothing to add.
    if !PANICKING.swap(true, Ordering::Relaxed) {
        match info.location() {
            Some(place) => {
                console::report(format_args!("\n*** MiniCache stops ({place}): {}", info.message()));
            }
            None => console::report(format_args!("\n*** MiniCache stops: {}", info.message())),
        }
    }
    power::fail()
}
