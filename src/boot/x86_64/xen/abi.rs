//! What the crate xen-sys lacks of Xen's hypercalls, named as in Xen's public headers.

/// Ourselves (`xen.h`).
pub const DOMID_SELF: u16 = 0x7ff0;

/// Commands and structures of `__HYPERVISOR_memory_op` (`memory.h`): how many pages a domain has, by its number.
pub const XENMEM_CURRENT_RESERVATION: u32 = 3;
/// Puts a page somewhere.
pub const XENMEM_ADD_TO_PHYSMAP: u32 = 7;
/// The page that Xen shares with the domain.
pub const XENMAPSPACE_SHARED_INFO: u32 = 0;
/// Pages of the domain's grant table.
pub const XENMAPSPACE_GRANT_TABLE: u32 = 1;

/// `xen_add_to_physmap`.
#[derive(Debug)]
#[repr(C)]
pub struct AddToPhysmap {
    /// Whose memory.
    pub domid: u16,
    /// Pages of a range; 0 where there is none.
    pub size: u16,
    /// `XENMAPSPACE_*`.
    pub space: u32,
    /// Which page of the space.
    pub idx: u64,
    /// Where it is to be: a page number.
    pub gpfn: u64,
}

/// Commands of `__HYPERVISOR_hvm_op` (`hvm/hvm_op.h`): reads a parameter.
pub const HVMOP_GET_PARAM: u32 = 1;

/// `xen_hvm_param`.
#[derive(Debug)]
#[repr(C)]
pub struct HvmParam {
    /// Whose parameter.
    pub domid: u16,
    /// Nothing.
    pub pad: u16,
    /// `HVM_PARAM_*`.
    pub index: u32,
    /// What it is.
    pub value: u64,
}

/// Parameters (`hvm/params.h`): the store's page.
pub const HVM_PARAM_STORE_PFN: u32 = 1;
/// The store's event channel.
pub const HVM_PARAM_STORE_EVTCHN: u32 = 2;
/// The console's page.
pub const HVM_PARAM_CONSOLE_PFN: u32 = 17;
/// The console's event channel.
pub const HVM_PARAM_CONSOLE_EVTCHN: u32 = 18;
