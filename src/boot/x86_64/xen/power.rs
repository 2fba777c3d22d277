//! The end, as Xen is told of it: what the domain's `on_poweroff`, `on_reboot` and `on_crash` say comes then.

use xen_sys::{
    __HYPERVISOR_sched_op, SCHEDOP_shutdown, SHUTDOWN_crash, SHUTDOWN_poweroff, SHUTDOWN_reboot, sched_shutdown,
};

use super::hypercall;
use crate::boot::x86_64::cpu;

/// Switches the machine off.
pub fn off() -> ! {
    shut_down(SHUTDOWN_poweroff)
}

/// Starts the machine anew.
pub fn reboot() -> ! {
    shut_down(SHUTDOWN_reboot)
}

/// Stops for good after a failure that has been reported.
pub fn crash() -> ! {
    shut_down(SHUTDOWN_crash)
}

fn shut_down(reason: u32) -> ! {
    let mut shutdown = sched_shutdown { reason };
    // SAFETY: the structure is the command's, and what it does is to stop us. Only an old Xen can refuse a reason.
    let _ = unsafe { hypercall::call(__HYPERVISOR_sched_op, SCHEDOP_shutdown, &mut shutdown) };
    cpu::stop()
}
